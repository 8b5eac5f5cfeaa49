//! What reads the texts of others, fed with mutated ones for a short time. `cargo fuzz` feeds the same functions longer.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tasker_tests::{fuzz::TARGETS, model::random::Random};

/// How long each target is fed beyond its seeds.
const LONG: Duration = Duration::from_secs(3);

/// The longest that one input may take on a busy machine.
const SLOW: Duration = Duration::from_secs(10);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(root().join("seeds").join(target)).expect("it has seeds");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a seed")).collect()
}

/// One to four changes: bytes flipped, cut out, doubled, replaced by what parsers stumble over, or taken from another seed.
fn mutated(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    const STUMBLES: [&[u8]; 14] = [
        b"\0",
        b"\xff\xfe",
        b"{",
        b"[",
        b"\"",
        b"\n",
        b": ",
        b"&a *a",
        b"-",
        b"99999999999999999999",
        b"1e999",
        b"\\u0000",
        b"\xed\xa0\x80",
        b"!!binary ",
    ];
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let (at, n) = (random.below(bytes.len() + 1), random.below(24));
        let end = (at + n).min(bytes.len());
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let again = bytes[at..end].repeat(1 + random.below(40));
                bytes.splice(at..at, again);
            }
            3 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                bytes.splice(at..end, other[from..(from + 40).min(other.len())].to_vec());
            }
            _ => drop(bytes.splice(at..at, STUMBLES[random.below(STUMBLES.len())].to_vec())),
        }
    }
    bytes
}

fn feed(name: &str) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("the target exists");
    let (seeds, mut random, mut inputs, started) = (seeds(name), Random::new(1), 0, Instant::now());
    for seed in &seeds {
        target(seed);
    }
    while started.elapsed() < LONG {
        let input = mutated(&mut random, &seeds);
        let fed = Instant::now();
        let ended = std::panic::catch_unwind(|| target(&input));
        assert!(ended.is_ok(), "input {inputs} of {name}: {:?}", String::from_utf8_lossy(&input));
        assert!(fed.elapsed() < SLOW, "input {inputs} of {name} took {:?}", fed.elapsed());
        inputs += 1;
    }
    println!("{name}: {} seeds and {inputs} mutated inputs", seeds.len());
}

#[test]
fn no_template_makes_its_parser_panic_or_hang() {
    feed("template");
}

#[test]
fn no_wfformat_document_makes_its_importer_panic_or_hang() {
    feed("wfformat");
}

#[test]
fn no_configuration_makes_its_reader_panic_or_hang() {
    feed("config");
}

#[test]
fn no_traceparent_makes_its_parser_panic_or_hang() {
    feed("traceparent");
}

#[test]
fn no_request_is_answered_in_a_way_that_the_document_does_not_know() {
    feed("http");
}

#[test]
fn no_message_makes_its_reader_panic_or_be_read_as_another() {
    feed("message");
}

#[test]
fn no_credential_but_what_the_issuer_signed_opens_the_door() {
    feed("token");
}

#[test]
fn no_set_of_published_keys_makes_its_reader_panic_or_hang() {
    feed("jwks");
}

#[test]
fn every_target_has_its_program_for_cargo_fuzz() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is no binary of fuzz/Cargo.toml");
        let program = fs::read_to_string(root().join(format!("fuzz_targets/{target}.rs"))).expect("it is there");
        assert!(program.contains(&format!("tasker_fuzz::{target}(data)")), "{program}");
    }
}
