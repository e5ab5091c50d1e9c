use std::path::Path;

use super::certificates::Polled;
use super::pair::{Pair, PairError};
use super::*;

const CA: &[u8] = include_bytes!("testdata/ca.crt");
const SHOP: [&[u8]; 2] = [include_bytes!("testdata/shop.crt"), include_bytes!("testdata/shop.key")];
const RENEWED: [&[u8]; 2] =
    [include_bytes!("testdata/shop-renewed.crt"), include_bytes!("testdata/shop-renewed.key")];
const WILD: [&[u8]; 2] = [include_bytes!("testdata/wild.crt"), include_bytes!("testdata/wild.key")];
const EXPIRED: [&[u8]; 2] = [include_bytes!("testdata/expired.crt"), include_bytes!("testdata/expired.key")];

const CLIENT_CA: &[u8] = include_bytes!("testdata/client-ca.crt");
const SECOND_CA: &[u8] = include_bytes!("testdata/client-ca-2.crt");

const LOADED: Polled = Polled { loaded: 1, failed: 0 };
const FAILED: Polled = Polled { loaded: 0, failed: 1 };
const NOTHING: Polled = Polled { loaded: 0, failed: 0 };

fn files(folder: &Path, name: &str) -> CertificateFiles {
    let at = |end: &str| folder.join(format!("{name}.{end}"));
    CertificateFiles { cert: at("crt"), key: at("key") }
}

/// Replaces both files by renaming others.
fn put(files: &CertificateFiles, [cert, key]: [&[u8]; 2]) {
    for (path, bytes) in [(&files.cert, cert), (&files.key, key)] {
        let new = path.with_extension("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(&new, path).unwrap();
    }
}

/// Which pair is served to a client that asks for a name.
fn served(certificates: &Certificates, name: Option<&str>) -> Option<&'static str> {
    let key = certificates.chosen(name)?;
    let known = [("shop", SHOP), ("renewed", RENEWED), ("wild", WILD), ("expired", EXPIRED)];
    known
        .into_iter()
        .find(|(_, [cert, key_pem])| Pair::parse(cert, key_pem).unwrap().key.cert == key.cert)
        .map(|found| found.0)
}

#[test]
fn a_pair_is_read_with_its_names_and_the_end_of_its_validity() {
    let [cert, key] = SHOP;
    let pair = Pair::parse(cert, key).unwrap();
    assert_eq!(pair.names, ["shop.example", "www.shop.example"]);
    assert_eq!(pair.not_after, Some(4_891_363_200));
    let chain = [cert, CA].concat();
    assert_eq!(Pair::parse(&chain, key).unwrap().key.cert.len(), 2);
    let both = [key, cert].concat();
    assert_eq!(Pair::parse(&both, &both).unwrap().names.len(), 2, "one file may have both");
    let [cert, key] = WILD;
    assert_eq!(Pair::parse(cert, key).unwrap().names, ["*.wild.example"]);
}

#[test]
fn files_that_are_no_pair_are_refused_for_what_is_wrong_with_them() {
    let [cert, key] = SHOP;
    let parse = |cert: &[u8], key: &[u8]| Pair::parse(cert, key).unwrap_err();
    assert_eq!(parse(b"", key), PairError::NoCertificate);
    assert_eq!(parse(key, key), PairError::NoCertificate);
    assert_eq!(parse(cert, b""), PairError::NoKey);
    assert_eq!(parse(cert, cert), PairError::NoKey);
    assert_eq!(parse(cert, RENEWED[1]), PairError::Mismatch);
    assert!(matches!(parse(&cert[..cert.len() / 2], key), PairError::CertificatePem(_)));
    assert!(matches!(parse(cert, &key[..key.len() / 2]), PairError::KeyPem(_)));
    let nonsense = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(parse(nonsense, key), PairError::Unusable(_)));
    let nonsense = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(parse(cert, nonsense), PairError::UnusableKey(_)));
}

#[test]
fn the_name_chooses_the_certificate_without_regard_to_case() {
    let folder = tempfile::tempdir().unwrap();
    let [shop, wild] = ["shop", "wild"].map(|name| files(folder.path(), name));
    put(&shop, SHOP);
    put(&wild, WILD);
    let certificates = Certificates::new(ListenerName::new("web"), vec![shop, wild]);
    assert_eq!(served(&certificates, Some("shop.example")), None, "nothing is read yet");
    assert_eq!(certificates.poll(), Polled { loaded: 2, failed: 0 });
    for (name, expected) in [
        (None, "shop"),
        (Some("shop.example"), "shop"),
        (Some("WWW.Shop.Example"), "shop"),
        (Some("www.shop.example."), "shop"),
        (Some("a.wild.example"), "wild"),
        (Some("A.WILD.example"), "wild"),
        (Some("b.a.wild.example"), "shop"),
        (Some("wild.example"), "shop"),
        (Some("other"), "shop"),
        (Some(""), "shop"),
    ] {
        assert_eq!(served(&certificates, name), Some(expected), "{name:?}");
    }
}

#[test]
fn the_names_of_the_certificate_that_a_name_selects_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let [shop, wild] = ["shop", "wild"].map(|name| files(folder.path(), name));
    put(&shop, SHOP);
    put(&wild, WILD);
    let certificates = Certificates::new(ListenerName::new("web"), vec![shop, wild]);
    certificates.poll();
    for (name, covered) in [
        ("shop.example", Some(["shop.example", "www.shop.example"].as_slice())),
        ("WWW.shop.example.", Some(&["shop.example", "www.shop.example"])),
        ("a.wild.example", Some(&["a.wild.example", "b.wild.example"])),
        ("wild.example", None),
        ("b.a.wild.example", None),
        ("", None),
        ("127.0.0.1", None),
    ] {
        let names = certificates.names_for(name);
        assert_eq!(names.is_some(), covered.is_some(), "{name}");
        for host in covered.unwrap_or_default() {
            assert!(names.as_ref().unwrap().cover(host), "{name} and {host}");
        }
    }
    let names = certificates.names_for("a.wild.example").unwrap();
    for host in ["wild.example", ".wild.example", "b.a.wild.example", "shop.example", "example", ""] {
        assert!(!names.cover(host), "{host}");
    }
}

#[test]
fn certificates_replaced_by_rename_or_by_a_link_are_read_and_a_broken_pair_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let shop = files(folder.path(), "shop");
    put(&shop, SHOP);
    let certificates = Certificates::new(ListenerName::new("web"), vec![shop.clone()]);
    assert_eq!((certificates.poll(), certificates.poll()), (LOADED, NOTHING));
    put(&shop, RENEWED);
    assert_eq!((certificates.poll(), served(&certificates, None)), (LOADED, Some("renewed")));
    put(&shop, RENEWED);
    assert_eq!(certificates.poll(), NOTHING, "the bytes are the same");

    // Between the replacements of the two files they do not fit.
    put(&shop, [SHOP[0], RENEWED[1]]);
    assert_eq!(certificates.poll(), NOTHING);
    put(&shop, SHOP);
    assert_eq!((certificates.poll(), served(&certificates, None)), (LOADED, Some("shop")));
    assert_eq!(health("web", &certificates.statuses(), 0), Health::Ready);

    for broken in [[SHOP[0], RENEWED[1]], [b"", SHOP[1]], [SHOP[0], b"x"]] {
        put(&shop, broken);
        assert_eq!(
            [certificates.poll(), certificates.poll(), certificates.poll()],
            [NOTHING, FAILED, NOTHING]
        );
        assert_eq!(served(&certificates, None), Some("shop"));
        let Health::Degraded(why) = health("web", &certificates.statuses(), 0) else {
            panic!("it is degraded")
        };
        assert_eq!(why.code, CERTIFICATE_REFUSED);
    }
    std::fs::remove_file(&shop.key).unwrap();
    assert_eq!([certificates.poll(), certificates.poll()], [NOTHING, FAILED]);
    assert_eq!(served(&certificates, None), Some("shop"));
    put(&shop, SHOP);
    assert_eq!(certificates.poll(), LOADED, "what was refused is served again");
    assert_eq!(health("web", &certificates.statuses(), 0), Health::Ready);
}

#[test]
fn a_folder_whose_link_is_replaced_as_kubernetes_does_it_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (version, pair) in [("v1", SHOP), ("v2", RENEWED)] {
        std::fs::create_dir(root.join(version)).unwrap();
        put(&files(&root.join(version), "tls"), pair);
    }
    std::os::unix::fs::symlink("v1", root.join("..data")).unwrap();
    for end in ["crt", "key"] {
        std::os::unix::fs::symlink(format!("..data/tls.{end}"), root.join(format!("tls.{end}"))).unwrap();
    }
    let certificates = Certificates::new(ListenerName::new("web"), vec![files(root, "tls")]);
    assert_eq!((certificates.poll(), served(&certificates, None)), (LOADED, Some("shop")));
    std::os::unix::fs::symlink("v2", root.join("..new")).unwrap();
    std::fs::rename(root.join("..new"), root.join("..data")).unwrap();
    assert_eq!((certificates.poll(), served(&certificates, None)), (LOADED, Some("renewed")));
}

#[test]
fn the_most_severe_trouble_is_reported_and_the_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let [expired, shop] = ["expired", "shop"].map(|name| files(folder.path(), name));
    put(&expired, EXPIRED);
    let certificates = Certificates::new(ListenerName::new("web"), vec![expired.clone(), shop.clone()]);
    assert_eq!(certificates.poll(), Polled { loaded: 1, failed: 1 });
    assert_eq!(certificates.poll(), NOTHING, "it is reported once");
    let Health::Degraded(why) = health("web", &certificates.statuses(), 1_700_000_000) else {
        panic!("one is missing")
    };
    assert!(why.text.contains("has expired"), "the other trouble is named, too: {why}");
    let code = |now| match health("web", &certificates.statuses(), now) {
        Health::Degraded(why) => {
            assert!(why.text.contains("`web`"), "{why:?}");
            Some(why.code)
        }
        _ => None,
    };
    assert_eq!(code(0), Some(CERTIFICATE_MISSING));
    assert_eq!(served(&certificates, Some("expired.example")), Some("expired"));
    put(&shop, SHOP);
    assert_eq!(certificates.poll(), LOADED);
    assert_eq!(code(1_000_000_000), None);
    assert_eq!(code(1_700_000_000), Some(CERTIFICATE_EXPIRED));
    std::fs::write(&expired.key, RENEWED[1]).unwrap();
    assert_eq!([certificates.poll(), certificates.poll()], [NOTHING, FAILED]);
    let Health::Degraded(why) = health("web", &certificates.statuses(), 1_700_000_000) else {
        panic!("it has expired")
    };
    assert_eq!(why.code, CERTIFICATE_EXPIRED);
    assert!(why.text.contains("the one that replaced it can't be used"), "{why}");
}

#[test]
fn a_file_that_is_none_or_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shop = files(folder.path(), "shop");
    std::fs::create_dir(&shop.cert).unwrap();
    std::fs::write(&shop.key, SHOP[1]).unwrap();
    let certificates = Certificates::new(ListenerName::new("web"), vec![shop.clone()]);
    assert_eq!(certificates.poll(), FAILED);
    let trouble = |certificates: &Certificates| certificates.statuses()[0].trouble.clone().unwrap();
    assert!(trouble(&certificates).contains("is not a file"));
    std::fs::remove_dir(&shop.cert).unwrap();
    std::fs::write(&shop.cert, vec![b'x'; 1024 * 1024 + 1]).unwrap();
    assert_eq!(certificates.poll(), FAILED);
    assert!(trouble(&certificates).contains("has more than"), "{}", trouble(&certificates));
}

#[tokio::test]
async fn the_health_of_a_renamed_listener_has_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::open("web", vec![files(folder.path(), "missing")], None, &["h2"]).await.unwrap();
    for name in ["web", "renamed"] {
        tls.rename(name);
        let Health::Degraded(why) = tls.health() else { panic!("its certificate is missing") };
        assert!(why.text.starts_with(&format!("listener `{name}` has no certificate")), "{why:?}");
    }
}

/// What the clients of a listener are verified by, and how often that changed.
fn poll(clients: &Clients) -> (Polled, bool) {
    let mut is_new = false;
    let polled = clients.poll("web", |_| is_new = true);
    (polled, is_new)
}

fn code(health: &Health) -> Option<ReasonCode> {
    match health {
        Health::Degraded(why) => {
            assert!(why.text.contains("`web`"), "{why:?}");
            Some(why.code.clone())
        }
        _ => None,
    }
}

#[test]
fn a_ca_that_changes_is_used_and_one_that_cannot_be_used_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    let clients = Clients::new(Some(ClientAuth { ca: ca.clone(), is_required: true }));
    assert!(clients.are_verified());
    assert_eq!([poll(&clients), poll(&clients)], [(FAILED, false), (NOTHING, false)], "reported once");
    assert_eq!(code(&clients.health("web")), Some(CLIENT_CA_MISSING));
    assert!(clients.missing().unwrap().1.unwrap().contains("ca.crt can't be read"));
    for broken in [&b""[..], SHOP[1], &CLIENT_CA[..CLIENT_CA.len() / 2]] {
        std::fs::write(&ca, broken).unwrap();
        assert_eq!(poll(&clients), (FAILED, false));
        assert_eq!(code(&clients.health("web")), Some(CLIENT_CA_MISSING));
    }
    std::fs::write(&ca, CLIENT_CA).unwrap();
    assert_eq!([poll(&clients), poll(&clients)], [(LOADED, true), (NOTHING, false)]);
    assert_eq!((clients.health("web"), clients.missing()), (Health::Ready, None));
    std::fs::write(&ca, [CLIENT_CA, SECOND_CA].concat()).unwrap();
    assert_eq!(poll(&clients), (LOADED, true), "a file may have several");
    std::fs::write(&ca, "no PEM").unwrap();
    assert_eq!([poll(&clients), poll(&clients)], [(NOTHING, false), (FAILED, false)], "after a second look");
    assert_eq!(code(&clients.health("web")), Some(CLIENT_CA_REFUSED));
    assert_eq!(clients.missing(), None, "the old one is used");
    std::fs::remove_file(&ca).unwrap();
    assert_eq!([poll(&clients), poll(&clients)], [(NOTHING, false), (FAILED, false)]);
    std::fs::write(&ca, CLIENT_CA).unwrap();
    assert_eq!(poll(&clients), (LOADED, true));
    assert_eq!(clients.health("web"), Health::Ready);
}

#[test]
fn other_rules_for_clients_are_read_first_and_then_used_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a"), CLIENT_CA).unwrap();
    std::fs::write(at("b"), SECOND_CA).unwrap();
    let auth = |name: &str, is_required| Some(ClientAuth { ca: at(name), is_required });
    let clients = Clients::new(None);
    assert_eq!((poll(&clients), clients.health("web")), ((NOTHING, false), Health::Ready));
    // The rules, whether they are used anew and whether clients are verified by them, and how many CAs were read.
    for (rules, used, loaded) in [
        (None, None, 0),
        (auth("a", true), Some(true), 1),
        (auth("a", true), None, 0),
        (auth("a", false), Some(true), 1),
        (auth("b", false), Some(true), 1),
        (None, Some(false), 0),
    ] {
        let read = clients.read(rules.clone()).unwrap();
        let mut found = None;
        assert_eq!(clients.replace(read, |verifier| found = Some(verifier.is_some())), loaded, "{rules:?}");
        assert_eq!(found, used, "{rules:?}");
        assert_eq!((poll(&clients), clients.are_verified()), ((NOTHING, false), rules.is_some()));
    }
    let why = clients.read(auth("gone", true)).unwrap_err();
    assert!(why.contains("gone can't be read"), "{why}");
    assert!(!clients.are_verified(), "nothing has changed");
}

#[test]
fn a_file_of_cas_is_checked_with_words_for_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    let auth = ClientAuth { ca: ca.clone(), is_required: false };
    let nonsense = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let second_is_nonsense = [CLIENT_CA, nonsense].concat();
    for (contents, words) in [
        (&b""[..], "no certificate"),
        (SHOP[1], "no certificate"),
        (&CLIENT_CA[..CLIENT_CA.len() / 2], "not in PEM"),
        (nonsense, "certificate 1 in the file"),
        (&second_is_nonsense, "certificate 2 in the file"),
    ] {
        std::fs::write(&ca, contents).unwrap();
        let why = auth.check().unwrap_err();
        assert!(why.contains(words) && why.contains("ca.crt"), "{why}");
    }
    std::fs::write(&ca, CLIENT_CA).unwrap();
    assert_eq!(auth.check(), Ok(()));
}
