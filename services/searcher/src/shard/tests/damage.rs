//! When local files are verified.

use super::*;

#[tokio::test]
async fn requests_that_fail_all_the_time_cause_a_verification_a_minute_and_no_opening() {
    let world =
        World { limits: Limits { refresh: Duration::from_secs(3_600), ..LIMITS }, ..World::new().await };
    let (owner, one) = (world.owner("a").await, world.index("one"));
    owner.put(&one, "x", "word").await;
    owner.shard.refresh().await.unwrap();
    let meters = owner.shard.0.meters.clone();
    owner.shard.suspect("a query panicked");
    until(async || meters.verifications.get() == 1).await;
    until(async || owner.shard.health() == Health::Ready).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(200) {
        owner.shard.suspect("a query panicked");
        sleep(Duration::from_millis(500)).await;
    }
    let verified = meters.verifications.get();
    assert!((3..=5).contains(&verified), "{verified}");
    assert_eq!(meters.openings.get(), 1);
    tokio::time::resume();
    assert_eq!(owner.search(&one, "word", ReadLevel::Strong).await, ["x"]);
    owner.stop().await;
}
