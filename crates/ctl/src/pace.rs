//! How long something takes, and how fast it is.

use std::time::Duration;

use tokio::time::Instant;

/// Progress is shown once something takes longer than this.
const LONG: Duration = Duration::from_secs(1);

/// Whether it takes so long that progress should be shown.
pub(crate) fn is_long(began: Instant) -> bool {
    began.elapsed() > LONG
}

/// The time, and how many items that is each second: `41 s (24 k/s)`.
pub(crate) fn pace(items: usize, time: Duration) -> String {
    let millis = usize::try_from(time.as_millis()).unwrap_or(usize::MAX).max(1);
    let each_second = items.saturating_mul(1_000) / millis;
    let pace = match each_second {
        0..10_000 => each_second.to_string(),
        _ => format!("{} k", each_second / 1_000),
    };
    let seconds =
        if millis < 10_000 { format!("{:.1}", time.as_secs_f64()) } else { (millis / 1_000).to_string() };
    format!("{seconds} s ({pace}/s)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_given_in_thousands() {
        assert_eq!(pace(1_000_000, Duration::from_secs(41)), "41 s (24 k/s)");
        assert_eq!(pace(3, Duration::from_millis(1_500)), "1.5 s (2/s)");
        assert_eq!(pace(0, Duration::ZERO), "0.0 s (0/s)");
    }
}
