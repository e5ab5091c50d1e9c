use object_store::Error as Raw;

use super::*;

fn of(source: Raw) -> StoreError {
    StoreError::new("write", "claims/storage/0/7.json", "file:///data", source)
}

fn of_io(kind: io::ErrorKind) -> StoreError {
    of(Raw::Generic { store: "LocalFileSystem", source: Box::new(io::Error::from(kind)) })
}

#[test]
fn an_error_names_operation_object_and_cause_in_a_line() {
    let full = of_io(io::ErrorKind::StorageFull);
    assert_eq!(full.to_string(), "cannot write `claims/storage/0/7.json` in file:///data: the disk is full");
    assert_eq!(full.kind(), ErrorKind::Unavailable);
    assert!(full.hint().unwrap().contains("free some space"));
    assert!(full.source().is_some());
}

#[test]
fn failures_of_a_disk_and_of_a_network_are_distinguished() {
    for (kind, fault) in [
        (io::ErrorKind::StorageFull, Fault::Full),
        (io::ErrorKind::QuotaExceeded, Fault::Full),
        (io::ErrorKind::ReadOnlyFilesystem, Fault::ReadOnly),
        (io::ErrorKind::PermissionDenied, Fault::Denied),
        (io::ErrorKind::NotFound, Fault::Missing),
        (io::ErrorKind::ConnectionRefused, Fault::Unreachable),
        (io::ErrorKind::TimedOut, Fault::Timeout),
        (io::ErrorKind::InvalidData, Fault::Other),
    ] {
        assert_eq!(of_io(kind).fault(), fault, "{kind:?}");
    }
    let exhausted = Box::new(io::Error::from_raw_os_error(Errno::MFILE.raw_os_error()));
    let exhausted = of(Raw::Generic { store: "LocalFileSystem", source: exhausted });
    assert_eq!(exhausted.fault(), Fault::NoDescriptors);
    assert!(crate::OpenError::from(exhausted).may_pass(), "it does not end a serving node");
}

#[test]
fn the_page_of_a_store_becomes_a_line() {
    let page = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error>\
                <Code>SignatureDoesNotMatch</Code>\n<Message>The keys do not\nmatch</Message></Error>";
    let denied = of(Raw::PermissionDenied { path: "x".to_owned(), source: page.into() });
    assert_eq!(denied.fault(), Fault::Denied);
    assert_eq!(
        denied.cause(),
        "access is denied (403 Forbidden: SignatureDoesNotMatch: The keys do not match)"
    );
    let long = of(Raw::Generic { store: "S3", source: "x".repeat(5_000).into() });
    assert!(long.cause().chars().count() <= 301, "{}", long.cause());
}

#[test]
fn a_missing_bucket_is_not_a_missing_object() {
    let page = "404 Not Found: <Error><Code>NoSuchBucket</Code></Error>";
    let bucket = Raw::NotFound { path: "x".to_owned(), source: page.into() };
    assert!(is_missing_bucket(&bucket));
    let error = of(bucket);
    assert_eq!(error.fault(), Fault::Missing);
    assert!(error.cause().starts_with("there is no such bucket"), "{error}");
    let page = "404 Not Found: <Error><Code>NoSuchKey</Code></Error>";
    assert!(!is_missing_bucket(&Raw::NotFound { path: "x".to_owned(), source: page.into() }));
}
