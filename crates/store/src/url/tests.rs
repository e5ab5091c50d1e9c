use super::*;

fn parse(text: &str) -> StoreUrl {
    text.parse().unwrap()
}

fn refused(text: &str) -> String {
    text.parse::<StoreUrl>().unwrap_err().to_string()
}

#[test]
fn a_url_is_shown_as_it_is_written() {
    for (text, shown) in [
        ("/var/lib/coterie", "file:///var/lib/coterie"),
        ("file:///var/lib/coterie/", "file:///var/lib/coterie"),
        ("/var//lib/./coterie", "file:///var/lib/coterie"),
        ("/tmp/a b#c?d%e", "file:///tmp/a%20b%23c%3Fd%25e"),
        ("file:///tmp/a%20b", "file:///tmp/a%20b"),
        ("file://localhost/tmp", "file:///tmp"),
        ("memory:///", "memory:///"),
        ("memory://", "memory:///"),
        ("s3://bucket", "s3://bucket"),
        ("S3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3a://bucket/a", "s3://bucket/a"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("az://container/a", "az://container/a"),
        ("abfs://container/a", "az://container/a"),
    ] {
        assert_eq!(parse(text).to_string(), shown, "{text}");
        assert_eq!(parse(shown), parse(text), "{text}");
    }
}

#[test]
fn only_folders_and_memory_are_local() {
    assert!(parse("/tmp").is_local());
    assert!(parse("memory:///").is_local());
    assert!(!parse("s3://bucket").is_local());
}

#[test]
fn an_unknown_scheme_lists_the_known_ones_and_suggests_one() {
    assert_eq!(
        refused("s4://bucket"),
        "store scheme `s4` is not known; use file, memory, s3, gs or az; did you mean `s3`?"
    );
    assert!(refused("flie:///tmp").ends_with("did you mean `file`?"));
    assert!(refused("gcs://bucket").ends_with("did you mean `gs`?"));
    assert_eq!(
        refused("postgres://host"),
        "store scheme `postgres` is not known; use file, memory, s3, gs or az"
    );
}

#[test]
fn credentials_in_a_url_are_refused_and_not_repeated() {
    for text in
        ["s3://key:secret@bucket/a", "s3://bucket/a?secret=1", "gs://secret@bucket", "az://c/a?sig=secret"]
    {
        let message = refused(text);
        assert!(message.contains("give them in the environment"), "{message}");
        assert!(!message.contains("=1") && !message.contains("key:"), "{message}");
        assert!(!message.contains("secret@") && !message.contains("sig="), "{message}");
    }
}

#[test]
fn a_text_that_is_no_store_is_refused_with_advice() {
    assert!(refused("").contains("give a folder"));
    assert!(refused("data/store").contains("neither an absolute path nor a url"));
    assert!(refused("https://minio:9000/bucket").contains("AWS_ENDPOINT"));
    assert!(refused("s3://").contains("write `s3://bucket/prefix`"));
    assert!(refused("s3:///prefix").contains("names no bucket"));
    assert!(refused("s3:// /prefix").contains("names no bucket"));
    assert!(refused("s3://bucket /prefix").contains("white space"));
    assert!(refused("s3://bucket/prefix /").contains("white space"));
    assert!(refused("s3://bucket/a//b").contains("cannot be used"));
    assert!(refused("file://host/tmp").contains("three slashes"));
    assert!(refused("file:///tmp?a=b").contains("%3F"));
    assert!(refused("memory:///name").contains("memory has no names"));
    assert!(refused("/tmp/../etc").contains("`..`"));
    assert!(StoreUrl::folder(Path::new("tmp")).is_err());
}

#[test]
fn a_url_goes_through_json() {
    let url = parse("s3://bucket/a");
    let json = serde_json::to_string(&url).unwrap();
    assert_eq!(json, "\"s3://bucket/a\"");
    assert_eq!(serde_json::from_str::<StoreUrl>(&json).unwrap(), url);
    assert!(serde_json::from_str::<StoreUrl>("\"s3://a:b@c\"").is_err());
}

proptest::proptest! {
    #[test]
    fn a_text_that_parses_prints_to_the_same_store(text in "(/|file:///|s3://|gs://|)[ -~äß]{0,30}") {
        if let Ok(url) = text.parse::<StoreUrl>() {
            proptest::prop_assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
        }
    }
}
