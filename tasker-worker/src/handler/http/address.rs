//! What addresses are: of the world, of a private network, of this machine, or nobody's to call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who may have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Public,
    Private,
    ThisMachine,
    /// Link-local, a metadata service or no destination.
    Never,
}

/// A range of addresses: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    first: IpAddr,
    prefix: u32,
}

impl Range {
    pub(super) fn read(text: &str) -> Option<Self> {
        let (first, prefix) = text.split_once('/')?;
        let (first, prefix) = (first.parse().ok()?, prefix.parse().ok()?);
        let most = if matches!(first, IpAddr::V4(_)) { 32 } else { 128 };
        (prefix <= most).then_some(Self { first, prefix })
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()).checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()).checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The IPv4 address inside an IPv6 address that only wraps one, in any of the ways in which the network unwraps it.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let (high, low) = match v6.segments() {
        // the address itself, and this machine
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return address,
        // IPv4-mapped, and its forerunner, IPv4-compatible
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => (high, low),
        // translated by NAT64, with the well-known prefix or one of the network's own
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => (high, low),
        // translated by SIIT
        [0, 0, 0, 0, 0xffff, 0, high, low] => (high, low),
        // tunnelled by 6to4
        [0x2002, high, low, ..] => (high, low),
        // tunnelled by ISATAP
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => (high, low),
        _ => return address,
    };
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into()
}

/// What `address` may lead to. A network's own NAT64 prefix has 48, 56, 64 or 96 bits, and which cannot be told from outside.
pub(super) fn meanings(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else { return vec![address] };
    let [0x64, 0xff9b, 1, ..] = v6.segments() else { return vec![plain(address)] };
    let o = v6.octets();
    let inside = [
        [o[6], o[7], o[9], o[10]],
        [o[7], o[9], o[10], o[11]],
        [o[9], o[10], o[11], o[12]],
        [o[12], o[13], o[14], o[15]],
    ];
    // 0.0.0.0/8 is what a longer or shorter prefix leaves behind, not a place to go
    inside.into_iter().filter(|inside| inside[0] != 0).map(|inside| IpAddr::from(Ipv4Addr::from(inside))).collect()
}

impl Kind {
    pub(super) fn of(address: IpAddr) -> Self {
        if is_forbidden(address) {
            return Self::Never;
        }
        match address {
            _ if address.is_loopback() => Self::ThisMachine,
            IpAddr::V4(v4) if v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..]) => Self::Private,
            IpAddr::V6(v6) if v6.is_unique_local() => Self::Private,
            _ => Self::Public,
        }
    }
}

fn is_forbidden(address: IpAddr) -> bool {
    match address {
        // 100.100.100.200, 168.63.129.16 and 192.0.0.192 are metadata services outside 169.254.0.0/16; from 240.0.0.0
        // on nothing is assigned, and the last address is a broadcast.
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_multicast()
                || matches!(
                    v4.octets(),
                    [0 | 240..=255, ..] | [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192]
                )
        }
        // fd00:ec2::/32 and fd20:ce::254 are metadata services; fec0::/10 was local to a site; 2001::/32 is a tunnel whose
        // end cannot be told.
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6 == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)
                || matches!(v6.segments(), [0xfd00, 0xec2, ..] | [0xfec0..=0xfeff, ..] | [0x2001, 0, ..])
        }
    }
}
