//! The open cells of a board by column, which lie far apart in memory: few of a column's cells are open.

use super::board::Grid;

/// A bit for each cell, by column and row.
#[derive(Default)]
pub(super) struct Columns {
    bits: Vec<u64>,
    /// Words of a column.
    words: usize,
}

impl Columns {
    /// Learns which cells are open in a window of so many levels.
    pub(super) fn begin(&mut self, grid: &Grid, width: u8) {
        let [rows, columns] = grid.axes.each_ref().map(|axis| axis.len());
        let words = rows.div_ceil(64);
        self.words = words;
        self.bits.clear();
        self.bits.resize(columns * words, 0);
        for row in 0..rows {
            let bits = &mut self.bits[row / 64..];
            grid.for_each_open(row, width, |column, _| {
                bits[column * words] |= 1 << (row % 64)
            });
        }
    }

    /// What they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bits.capacity() * size_of::<u64>()
    }

    /// Makes room for a column that is new.
    pub(super) fn make_room(&mut self, column: usize) {
        let bits = (column + 1) * self.words;
        if self.bits.len() < bits {
            self.bits.resize(bits, 0);
        }
    }

    /// Words of a column.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// Rows of a column that are open, a bit each: so many words of it.
    #[inline(always)]
    pub(super) fn word(&mut self, column: usize, word: usize) -> &mut u64 {
        &mut self.bits[column * self.words + word]
    }

    /// Calls `see` with the rows of a column that are open.
    #[inline(always)]
    pub(super) fn for_each_row(&self, column: usize, mut see: impl FnMut(usize)) {
        for (index, &word) in self.of(column).iter().enumerate() {
            let mut open = word;
            while open != 0 {
                see(index * 64 + open.trailing_zeros() as usize);
                open &= open - 1;
            }
        }
    }

    fn of(&self, column: usize) -> &[u64] {
        &self.bits[column * self.words..(column + 1) * self.words]
    }
}
