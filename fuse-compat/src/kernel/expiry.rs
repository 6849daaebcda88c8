use std::time::Duration;

/// When something that a server said is valid for `sec` and `nsec` becomes stale. Huge values mean for ever.
pub fn expiry(now: Duration, sec: u64, nsec: u32) -> Duration {
    if sec == 0 && nsec == 0 {
        return Duration::ZERO;
    }
    now.saturating_add(Duration::from_secs(sec))
        .saturating_add(Duration::from_nanos(nsec.min(999_999_999).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturates() {
        let now = Duration::from_secs(5);
        assert_eq!(expiry(now, 0, 0), Duration::ZERO);
        assert_eq!(expiry(now, 1, 500_000_000), Duration::from_millis(6500));
        assert_eq!(expiry(now, u64::MAX, u32::MAX), Duration::MAX);
    }
}
