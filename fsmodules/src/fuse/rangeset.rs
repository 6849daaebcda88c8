//! Sets of byte ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, not touching, half-open ranges: start to end.
#[derive(Default, Debug)]
pub struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&s, &e)) = self.0.range(..=end).next_back().filter(|&(_, &e)| e >= start) {
            self.0.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.0.insert(start, end);
    }

    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&s, &e)) = self.0.range(..range.end).next_back().filter(|&(_, &e)| e > range.start) {
            self.0.remove(&s);
            if s < range.start {
                self.0.insert(s, range.start);
            }
            if e > range.end {
                self.0.insert(range.end, e);
            }
        }
    }

    /// The first part of the range that is not in the set.
    pub fn first_gap(&self, range: Range<u64>) -> Option<Range<u64>> {
        let start = match self.0.range(..=range.start).next_back() {
            Some((_, &end)) if end > range.start => end,
            _ => range.start,
        };
        if start >= range.end {
            return None;
        }
        let end = self
            .0
            .range(start..range.end)
            .next()
            .map_or(range.end, |(&next, _)| next);
        Some(start..end)
    }

    /// How far the set reaches from here without a gap.
    pub fn covered_until(&self, from: u64) -> u64 {
        self.0
            .range(..=from)
            .next_back()
            .map_or(from, |(_, &end)| end.max(from))
    }

    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(&start, &end)| start..end)
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
            let until = (a..64).find(|&i| !bitmap[i as usize]).unwrap_or(64);
            assert_eq!(set.covered_until(a), until);
            let ranges: Vec<_> = set.iter().collect();
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
        }
    }
}
