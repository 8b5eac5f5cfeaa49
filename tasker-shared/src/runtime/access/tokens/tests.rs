//! Tokens of an issuer that the test plays: what is accepted, what is refused with which words, and how keys are fetched.

use super::{Tokens, words};
use crate::{
    access::{Kind, Permission, Principal},
    config::Jwt,
    runtime::access::Denied,
};
use axum::{Router, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

/// A key of nobody, for these tests alone.
const RSA: &[u8] = include_bytes!("rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("rsa.pub.pem");

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(PrivateKeyDer::from_pem_slice(RSA).unwrap().secret_der()).unwrap()
}

fn p256() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap()
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()))
}

fn rs256(header: &Value, claims: &Value) -> String {
    let (key, message) = (rsa(), unsigned(header, claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", base64(&signature))
}

fn es256(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let message = unsigned(header, claims);
    let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", base64(signature.as_ref()))
}

/// Seconds since 1970, some from now.
fn at(seconds: i64) -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example.com/", "aud": ["tasker", "other"], "sub": "ada", "exp": at(600), "nbf": at(-60),
        "permissions": ["tasks:read", "email", "dlq:*"], "namespaces": "shop stock",
    })
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(key)),
            value => claims[key] = value.clone(),
        }
    }
    claims
}

fn settings() -> Jwt {
    Jwt {
        public_key: None,
        jwks_url: None,
        jwks_refresh: Duration::from_secs(600),
        jwks_min_interval: Duration::from_secs(600),
        issuer: "https://id.example.com/".into(),
        audience: "tasker".into(),
        leeway: Duration::from_secs(60),
        permissions_claim: "permissions".into(),
        namespaces_claim: "namespaces".into(),
    }
}

/// Accepts tokens of the RSA key.
fn fixed() -> (tempfile::TempDir, Tokens) {
    let dir = tempfile::tempdir().unwrap();
    let file: PathBuf = dir.path().join("issuer.pem");
    fs::write(&file, RSA_PUBLIC).unwrap();
    let tokens = Tokens::new(&Jwt { public_key: Some(file), ..settings() }).unwrap().unwrap();
    (dir, tokens)
}

fn told(checked: Result<Principal, Denied>) -> String {
    match checked {
        Ok(principal) => panic!("{principal} was let in"),
        Err(Denied::Invalid(reason) | Denied::Unavailable(reason)) => reason,
        Err(Denied::Missing) => panic!("it is there"),
    }
}

#[tokio::test]
async fn a_token_of_the_issuer_brings_its_subject_permissions_and_namespaces() {
    let (_dir, tokens) = fixed();
    let principal = tokens.check(&rs256(&json!({"alg": "RS256"}), &claims())).await.unwrap();
    assert_eq!((principal.kind(), principal.name()), (Kind::Token, "jwt:ada"));
    let may: Vec<_> = Permission::ALL.iter().filter(|p| principal.may(**p)).map(|p| p.as_str()).collect();
    assert_eq!(may, ["tasks:read", "dlq:read", "dlq:operate"]);
    assert_eq!(principal.namespaces().limit().unwrap(), ["shop", "stock"]);
}

#[tokio::test]
async fn a_token_without_claims_of_permission_may_nothing() {
    let (_dir, tokens) = fixed();
    let bare = with(json!({"permissions": null, "namespaces": null}));
    let principal = tokens.check(&rs256(&json!({"alg": "RS256"}), &bare)).await.unwrap();
    assert!(Permission::ALL.iter().all(|permission| !principal.may(*permission)));
    assert!(!principal.namespaces().contain("shop"));
}

#[tokio::test]
async fn a_token_that_is_not_in_order_is_refused_with_the_reason() {
    let (_dir, tokens) = fixed();
    for (changes, reason) in [
        (json!({"exp": at(-90)}), "the token has expired"),
        (json!({"exp": null}), "the token lacks the claim `exp`"),
        (json!({"exp": "soon"}), "the token lacks the claim `exp`"),
        (json!({"nbf": at(300)}), "the token is not valid yet"),
        (json!({"nbf": "later"}), "the token is not valid"),
        (json!({"iss": "https://evil.example.com/"}), "the token is of another issuer"),
        (json!({"iss": null}), "the token lacks the claim `iss`"),
        (json!({"aud": "billing"}), "the token is for another audience"),
        (json!({"aud": null}), "the token lacks the claim `aud`"),
        (json!({"sub": null}), "the token lacks the claim `sub`"),
        (json!({"sub": ""}), "the token's subject must have 1 to 200 legible bytes"),
        (json!({"sub": "a\nb"}), "the token's subject must have 1 to 200 legible bytes"),
    ] {
        let refused = told(tokens.check(&rs256(&json!({"alg": "RS256"}), &with(changes.clone()))).await);
        assert!(refused.starts_with(reason), "{changes}: {refused}");
    }
    for accepted in [json!({"exp": at(-10)}), json!({"nbf": at(50)}), json!({"nbf": null}), json!({"aud": "tasker"})] {
        let token = rs256(&json!({"alg": "RS256"}), &with(accepted.clone()));
        assert!(tokens.check(&token).await.is_ok(), "{accepted}: within the leeway");
    }
}

#[tokio::test]
async fn no_other_algorithm_is_accepted_whatever_the_token_says() {
    let (_dir, tokens) = fixed();
    let signature = rs256(&json!({"alg": "RS256"}), &claims()).rsplit('.').next().unwrap().to_owned();
    for algorithm in
        ["none", "None", "NONE", "", "HS256", "HS384", "HS512", "RS384", "PS256", "ES256", "ES384", "EdDSA"]
    {
        let message = unsigned(&json!({"alg": algorithm}), &claims());
        for end in ["", signature.as_str()] {
            told(tokens.check(&format!("{message}.{end}")).await);
        }
        told(tokens.check(&message).await);
    }
    // the public key taken for the secret of an HMAC
    let message = unsigned(&json!({"alg": "HS256"}), &claims());
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, RSA_PUBLIC);
    let forged = format!("{message}.{}", base64(ring::hmac::sign(&key, message.as_bytes()).as_ref()));
    assert_eq!(told(tokens.check(&forged).await), "the token must be signed with RS256 or ES256");
    let critical = rs256(&json!({"alg": "RS256", "crit": ["exp"]}), &claims());
    assert!(told(tokens.check(&critical).await).contains("extensions"));
}

#[tokio::test]
async fn a_token_that_was_changed_or_signed_by_others_is_refused() {
    let (_dir, tokens) = fixed();
    let good = rs256(&json!({"alg": "RS256"}), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let other = base64(with(json!({"sub": "eve"})).to_string().as_bytes());
    assert_eq!(told(tokens.check(&format!("{header}.{other}.{signature}")).await), "the token's signature is wrong");
    let own_key = json!({"alg": "ES256", "jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}});
    told(tokens.check(&es256(&p256(), &own_key, &claims())).await);
    for rubbish in ["", ".", "..", "a.b.c", "a", &format!("{good}.x"), &good[..good.len() - 2]] {
        told(tokens.check(rubbish).await);
    }
}

#[test]
fn a_claim_is_a_list_or_words_and_its_name_may_be_a_path() {
    let claims = json!({"a.b": ["x"], "a": {"b": ["y"], "c": {"d": "p q"}}, "n": 3, "l": [1, "z"]});
    let claims = claims.as_object().unwrap();
    assert_eq!(words(claims, "a.b"), ["x"]);
    assert_eq!(words(claims, "a.c.d"), ["p", "q"]);
    assert_eq!(words(claims, "l"), ["z"]);
    assert!(words(claims, "n").is_empty() && words(claims, "a.b.c").is_empty() && words(claims, "").is_empty());
}

#[test]
fn a_key_file_that_cannot_be_used_stops_the_start_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    for (file, text, reason) in [
        ("absent.pem", None, "No such file"),
        ("wrong.pem", Some("nothing"), "no RSA or P-256 public key"),
        (
            "empty.pem",
            Some("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
            "no RSA or P-256 public key",
        ),
    ] {
        let path = dir.path().join(file);
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let refused = Tokens::new(&Jwt { public_key: Some(path), ..settings() }).err().unwrap().to_string();
        assert!(refused.contains(file) && refused.contains(reason), "{refused}");
    }
}

/// An issuer that publishes its keys.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Option<Value>>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let (keys, fetches) = (Arc::<Mutex<Option<Value>>>::default(), Arc::<AtomicUsize>::default());
        let (published, counted) = (Arc::clone(&keys), Arc::clone(&fetches));
        let answer = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let set = published.lock().unwrap().clone();
            async move {
                match set {
                    Some(set) => Ok(axum::Json(json!({ "keys": set }))),
                    None => Err(axum::http::StatusCode::BAD_GATEWAY),
                }
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let router = Router::new().route("/keys", get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, keys, fetches }
    }

    fn publish(&self, keys: &[Value]) {
        *self.keys.lock().unwrap() = Some(keys.into());
    }

    fn tokens(&self, refresh: Duration, min_interval: Duration) -> Tokens {
        let url = Some(self.url.clone());
        let settings = Jwt { jwks_url: url, jwks_refresh: refresh, jwks_min_interval: min_interval, ..settings() };
        Tokens::new(&settings).unwrap().unwrap()
    }

    fn fetched(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

fn jwk(id: &str, key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "kid": id, "x": base64(&point[1..33]), "y": base64(&point[33..])})
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn published_keys_are_fetched_once_and_again_for_a_key_that_is_new() {
    let (issuer, first, second) = (Issuer::start().await, p256(), p256());
    let tokens = issuer.tokens(LONG, Duration::ZERO);
    let rsa = rsa();
    let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public());
    issuer.publish(&[jwk("a", &first), json!({"kty": "RSA", "kid": "r", "n": base64(&n), "e": base64(&e)})]);
    for _ in 0..3 {
        assert!(tokens.check(&es256(&first, &json!({"alg": "ES256", "kid": "a"}), &claims())).await.is_ok());
        assert!(tokens.check(&rs256(&json!({"alg": "RS256", "kid": "r"}), &claims())).await.is_ok());
    }
    assert_eq!(issuer.fetched(), 1);
    let token = es256(&second, &json!({"alg": "ES256", "kid": "b"}), &claims());
    assert!(told(tokens.check(&token).await).contains("not among those that the issuer publishes"));
    issuer.publish(&[jwk("b", &second)]);
    assert!(tokens.check(&token).await.is_ok());
    // the old one is published no more
    told(tokens.check(&es256(&first, &json!({"alg": "ES256", "kid": "a"}), &claims())).await);
    // the key of another algorithm is not taken for it
    told(tokens.check(&rs256(&json!({"alg": "RS256", "kid": "b"}), &claims())).await);
}

#[tokio::test]
async fn tokens_with_unknown_keys_do_not_make_the_service_ask_the_issuer_again_and_again() {
    let (issuer, key) = (Issuer::start().await, p256());
    let tokens = issuer.tokens(LONG, LONG);
    issuer.publish(&[jwk("a", &key)]);
    for n in 0..50 {
        told(tokens.check(&es256(&key, &json!({"alg": "ES256", "kid": format!("x{n}")}), &claims())).await);
    }
    assert_eq!(issuer.fetched(), 1);
    assert!(tokens.check(&es256(&key, &json!({"alg": "ES256", "kid": "a"}), &claims())).await.is_ok());
}

#[tokio::test]
async fn known_keys_go_on_while_the_issuer_is_away_and_nobody_is_refused_for_a_guess() {
    let (issuer, key) = (Issuer::start().await, p256());
    let tokens = issuer.tokens(Duration::ZERO, Duration::ZERO);
    let token = es256(&key, &json!({"alg": "ES256", "kid": "a"}), &claims());
    assert!(matches!(tokens.check(&token).await, Err(Denied::Unavailable(_))));
    issuer.publish(&[jwk("a", &key)]);
    assert!(tokens.check(&token).await.is_ok());
    *issuer.keys.lock().unwrap() = None;
    assert!(tokens.check(&token).await.is_ok());
    assert!(issuer.fetched() >= 3);
}

#[tokio::test]
async fn keys_that_cannot_check_a_signature_are_left_out() {
    let (issuer, key) = (Issuer::start().await, p256());
    let tokens = issuer.tokens(LONG, LONG);
    let odd = |extra: Value| {
        let mut odd = jwk("a", &key);
        odd.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        odd
    };
    issuer.publish(&[
        json!({"kty": "oct", "kid": "a", "k": base64(RSA_PUBLIC)}),
        odd(json!({"use": "enc"})),
        odd(json!({"alg": "ES384"})),
        jwk("b", &key),
    ]);
    let signed = |id: &str| es256(&key, &json!({"alg": "ES256", "kid": id}), &claims());
    assert!(tokens.check(&signed("b")).await.is_ok());
    told(tokens.check(&signed("a")).await);
    // one key is left, so a token need not name it
    assert!(tokens.check(&es256(&key, &json!({"alg": "ES256"}), &claims())).await.is_ok());
}

#[tokio::test]
async fn keys_with_one_name_or_none_are_told_apart_and_what_is_no_key_spoils_nothing() {
    let (issuer, key, other) = (Issuer::start().await, p256(), p256());
    let rsa = rsa();
    let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public());
    let without = |mut jwk: Value, field: &str| {
        jwk.as_object_mut().unwrap().remove(field);
        jwk
    };
    let with = |mut jwk: Value, field: &str, value: Value| {
        jwk[field] = value;
        jwk
    };
    let rsa_jwk = json!({"kty": "RSA", "kid": "a", "n": base64(&n), "e": base64(&e)});
    let ec = |id: Option<&str>, key| {
        es256(key, &id.map_or(json!({"alg": "ES256"}), |id| json!({"alg": "ES256", "kid": id})), &claims())
    };
    let rs = |id: &str| rs256(&json!({"alg": "RS256", "kid": id}), &claims());

    for set in [vec![jwk("a", &key), rsa_jwk.clone()], vec![rsa_jwk.clone(), jwk("a", &key)]] {
        issuer.publish(&set);
        let tokens = issuer.tokens(LONG, LONG);
        assert!(tokens.check(&ec(Some("a"), &key)).await.is_ok() && tokens.check(&rs("a")).await.is_ok());
        told(tokens.check(&ec(Some("a"), &other)).await);
    }
    issuer.publish(&[without(jwk("", &key), "kid"), without(jwk("", &other), "kid"), without(rsa_jwk.clone(), "kid")]);
    let tokens = issuer.tokens(LONG, LONG);
    assert!(tokens.check(&ec(None, &key)).await.is_ok() && tokens.check(&ec(None, &other)).await.is_ok());
    assert!(tokens.check(&rs256(&json!({"alg": "RS256"}), &claims())).await.is_ok());
    let stranger = p256();
    assert_eq!(told(tokens.check(&ec(None, &stranger)).await), "the token's signature is wrong");

    issuer.publish(&[
        Value::Null,
        json!(7),
        with(jwk("x", &other), "kid", json!(7)),
        with(jwk("x", &other), "x5c", json!("no list")),
        with(jwk("x", &other), "x", json!("!")),
        jwk("a", &key),
    ]);
    assert!(issuer.tokens(LONG, LONG).check(&ec(Some("a"), &key)).await.is_ok());
}
