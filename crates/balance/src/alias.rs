//! Weighted random choice in constant time: Vose's alias table.
//!
//! Each column of the table belongs to one member up to a mark and to another one above it; drawing is one random
//! number, one look and one comparison, whatever the weights.

use crate::rng::{Rng, scale};

#[derive(Debug)]
struct Column {
    /// Share of the column that is `below`'s, in 2^-32.
    mark: u64,
    below: u32,
    above: u32,
}

/// A table to draw from.
#[derive(Debug)]
pub(crate) struct Alias {
    columns: Vec<Column>,
}

impl Alias {
    /// Makes the table. Weight 0 is never drawn.
    pub(crate) fn new(weights: &[u32]) -> Self {
        let positive = (0u32..).zip(weights).filter(|(_, w)| **w > 0);
        let count = positive.clone().count() as u64;
        let total: u64 = positive.clone().map(|(_, w)| u64::from(*w)).sum();
        // In units in which a column holds `total`, a member has `weight × count`.
        let (mut small, mut large): (Vec<_>, Vec<_>) = positive
            .map(|(index, w)| (index, u64::from(*w) * count))
            .partition(|(_, share)| *share < total);
        let mut columns = Vec::with_capacity(count as usize);
        while let Some((below, share)) = small.pop() {
            let Some((above, rich)) = large.pop() else {
                small.push((below, share));
                break;
            };
            columns.push(Column {
                mark: (share << 32) / total,
                below,
                above,
            });
            let rest = rich - (total - share);
            let side = if rest < total { &mut small } else { &mut large };
            side.push((above, rest));
        }
        columns.extend(large.into_iter().chain(small).map(|(index, _)| Column {
            mark: 1 << 32,
            below: index,
            above: index,
        }));
        Self { columns }
    }

    /// Draws one; `None` from an empty table.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Option<usize> {
        let random = rng.next_u64();
        let column = scale(random, self.columns.len() as u64);
        let column = self.columns.get(column as usize)?;
        let below = random & u64::from(u32::MAX) < column.mark;
        Some(if below { column.below } else { column.above } as usize)
    }
}
