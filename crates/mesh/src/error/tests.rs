//! The status, the code and the hint of each error.

use super::*;

#[test]
fn each_error_has_its_status_a_code_and_a_hint() {
    let service: ServiceName = "storage".parse().unwrap();
    let address = || "127.0.0.1:1".to_owned();
    let why = || "words".to_owned();
    let last = || Box::new(Problem::new(ErrorKind::Unavailable, "too-busy", "all room is taken"));
    let limit = Duration::from_secs(1);
    for (error, status, code) in [
        (MeshError::UnknownService { service: service.clone() }, 404, "unknown-service"),
        (
            MeshError::NoOwner {
                service: service.clone(),
                shard: "1".parse().unwrap(),
                last: Some(("a".parse().unwrap(), Epoch(3))),
                spare: None,
                resigned: None,
                waited: limit,
            },
            503,
            "no-owner",
        ),
        (MeshError::NoServingMember { service, spare: None, waited: limit }, 503, "no-serving-member"),
        (MeshError::Refused { last: last(), waited: limit }, 503, "too-busy"),
        (MeshError::HeadTooLarge { address: address() }, 502, "answer-head-too-large"),
        (
            MeshError::BadAnswer {
                address: address(),
                why: crate::head::AnswerError::TransferCoding("gzip, chunked".to_owned()),
            },
            502,
            "bad-answer",
        ),
        (MeshError::QueueFull { waiting: 1 }, 503, "queue-full"),
        (MeshError::BodyTooLargeToResend { last: last(), kept: 1 }, 503, "not-processed"),
        (MeshError::Unreachable { address: address(), why: why() }, 502, "unreachable"),
        (
            MeshError::NoTlsSession { address: address(), why: format!("not valid for {}", address()) },
            502,
            "no-tls-session",
        ),
        (MeshError::Broken { address: address(), why: why() }, 502, "broken-connection"),
        (MeshError::Garbage { address: address(), why: why() }, 502, "bad-answer"),
        (MeshError::BadHandshake { address: address(), why: why() }, 502, "bad-handshake-answer"),
        (MeshError::NoWebSockets { address: address() }, 502, "websockets-not-allowed"),
        (MeshError::TimedOut { address: address(), limit }, 504, "no-answer-in-time"),
        (MeshError::DeadlinePassed { address: None }, 504, "deadline-passed"),
        (MeshError::DeadlinePassed { address: Some(address()) }, 504, "deadline-passed"),
        (MeshError::BodyAborted { why: why() }, 400, "body-aborted"),
        (MeshError::BodyMalformed { why: why() }, 400, "malformed-body"),
        (MeshError::BodyStalled { limit }, 408, "body-stalled"),
        (MeshError::BodyTooSlow { arrived: 1, min: MinRate::new(100) }, 408, "slow-body"),
        (MeshError::Loop, 508, "loop-detected"),
        (MeshError::Malformed { why: why() }, 400, "malformed-request"),
        (MeshError::NoAddress, 500, "no-address"),
        (MeshError::AllDown { why: Some(format!("{} fails", address())) }, 503, "no-backend"),
    ] {
        let problem = error.to_problem();
        assert_eq!((problem.status, problem.code()), (status, code), "{error:?}");
        let for_clients = error.clone().without_address().to_problem();
        assert_eq!((for_clients.status, for_clients.code()), (status, code), "{error:?}");
        assert!(!for_clients.detail.contains(&address()), "{for_clients:?}");
        assert!(problem.hint.is_some_and(|hint| !hint.is_empty()), "{error:?}");
    }
}

#[test]
fn the_hint_names_a_standby() {
    let (service, waited): (ServiceName, _) = ("storage".parse().unwrap(), Duration::ZERO);
    let spare: Option<NodeId> = Some("standby-1".parse().unwrap());
    let shard = "1".parse().unwrap();
    let hint = |error: MeshError| error.to_problem().hint.unwrap();
    let missing = hint(MeshError::NoServingMember { service: service.clone(), spare: spare.clone(), waited });
    assert!(missing.contains("`ctl set-service standby-1 storage`"), "{missing}");
    let vacant = hint(MeshError::NoOwner { service, shard, last: None, resigned: None, spare, waited });
    assert!(vacant.contains("`ctl set-service standby-1 storage --shard 1 --take`"), "{vacant}");
}

#[test]
fn an_error_mentions_waiting_only_if_the_request_waited() {
    let service: ServiceName = "storage".parse().unwrap();
    let error =
        |waited| MeshError::NoServingMember { service: service.clone(), spare: None, waited }.to_string();
    assert_eq!(error(Duration::from_nanos(261)), "no member serves `storage`");
    assert_eq!(error(Duration::from_millis(1_234)), "no member serves `storage` (waited 1.2s)");
}
