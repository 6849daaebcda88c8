//! Sets of byte ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, not touching, half-open ranges.
#[derive(Clone, Default, Debug)]
pub struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
    bytes: u64,
}

impl RangeSet {
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back().filter(|&(_, &e)| e >= start) {
            self.take(s, e);
            start = start.min(s);
            end = end.max(e);
        }
        self.add(start, end);
    }

    fn take(&mut self, start: u64, end: u64) {
        self.ranges.remove(&start);
        self.bytes -= end - start;
    }

    fn add(&mut self, start: u64, end: u64) {
        self.ranges.insert(start, end);
        self.bytes += end - start;
    }

    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&s, &e)) = self
            .ranges
            .range(..range.end)
            .next_back()
            .filter(|&(_, &e)| e > range.start)
        {
            self.take(s, e);
            if s < range.start {
                self.add(s, range.start);
            }
            if e > range.end {
                self.add(range.end, e);
            }
        }
    }

    /// The first part of the range that is not in the set.
    pub fn first_gap(&self, range: Range<u64>) -> Option<Range<u64>> {
        let start = match self.ranges.range(..=range.start).next_back() {
            Some((_, &end)) if end > range.start => end,
            _ => range.start,
        };
        if start >= range.end {
            return None;
        }
        let end = self
            .ranges
            .range(start..range.end)
            .next()
            .map_or(range.end, |(&next, _)| next);
        Some(start..end)
    }

    /// How far the set reaches from here without a gap.
    pub fn covered_until(&self, from: u64) -> u64 {
        self.ranges
            .range(..=from)
            .next_back()
            .map_or(from, |(_, &end)| end.max(from))
    }

    /// The first part of the range that is in the set.
    pub fn first(&self, range: Range<u64>) -> Option<Range<u64>> {
        let start = match self.covered_until(range.start) > range.start {
            true => range.start,
            false => *self.ranges.range(range.clone()).next()?.0,
        };
        let end = self.covered_until(start).min(range.end);
        (start < end).then_some(start..end)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the last range ends.
    pub fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, &end)| end)
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_a_bitmap() {
        let mut set = RangeSet::default();
        let mut bitmap = [false; 64];
        let mut seed = 12345u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (a, b, insert) = (seed >> 33 & 63, seed >> 43 & 63, seed >> 60 & 1 == 1);
            let range = a.min(b)..a.max(b);
            bitmap[range.start as usize..range.end as usize].fill(insert);
            if insert {
                set.insert(range)
            } else {
                set.remove(range)
            }
            assert_eq!(set.bytes(), bitmap.iter().filter(|&&bit| bit).count() as u64);
            let gap = set.first_gap(a..64).map(|gap| gap.start);
            assert_eq!(gap, (a..64).find(|&i| !bitmap[i as usize]));
            let first = set.first(a..64).map(|first| first.start);
            assert_eq!(first, (a..64).find(|&i| bitmap[i as usize]));
            assert_eq!(
                set.end(),
                bitmap.iter().rposition(|&bit| bit).map_or(0, |i| i as u64 + 1)
            );
            let until = (a..64).find(|&i| !bitmap[i as usize]).unwrap_or(64);
            assert_eq!(set.covered_until(a), until);
            let ranges: Vec<_> = set.iter().collect();
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
        }
    }
}
