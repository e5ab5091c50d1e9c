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
    assert!(matches!(parse(cert, nonsense), PairError::Unusable(_)));
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
    let certificates = Certificates::new(ListenerName::new("web"), vec![expired, shop.clone()]);
    assert_eq!(certificates.poll(), Polled { loaded: 1, failed: 1 });
    assert_eq!(certificates.poll(), NOTHING, "it is reported once");
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
    let tls = Tls::open("web", vec![files(folder.path(), "missing")], &["h2"]).await.unwrap();
    for name in ["web", "renamed"] {
        tls.rename(name);
        let Health::Degraded(why) = tls.health() else { panic!("its certificate is missing") };
        assert!(why.text.starts_with(&format!("listener `{name}` has no certificate")), "{why:?}");
    }
}
