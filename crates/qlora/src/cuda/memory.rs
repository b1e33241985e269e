//! Where things lie on the card: regions, rows of values, an arena for one step and a store for what stays.
//!
//! The arena hands out aligned pieces of one block in the order of a stack; it never asks the driver. Run
//! without a block it only counts, so the same code that computes a step also says what the step takes.

use kernels::Element;

use super::device::Device;
use crate::error::Result;

/// Some bytes on the card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) at: u64,
    pub(super) bytes: usize,
}

impl Region {
    /// The part from `offset`, `bytes` long.
    pub(super) fn part(self, offset: usize, bytes: usize) -> Self {
        assert!(
            offset + bytes <= self.bytes,
            "part {offset}+{bytes} of {}",
            self.bytes
        );
        Self {
            at: self.at + offset as u64,
            bytes,
        }
    }
}

/// Rows of values of one element type.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "rows by columns, as everywhere")]
pub(super) struct Rows {
    pub(super) at: u64,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// In values.
    pub(super) stride: usize,
    pub(super) element: Element,
}

impl Rows {
    /// Columns `from..from + cols`.
    pub(super) fn columns(self, from: usize, cols: usize) -> Self {
        assert!(
            from + cols <= self.cols,
            "columns {from}+{cols} of {}",
            self.cols
        );
        Self {
            at: self.at + (from * self.element.size()) as u64,
            cols,
            ..self
        }
    }

    /// Rows `from..from + rows`.
    pub(super) fn slice(self, from: usize, rows: usize) -> Self {
        assert!(
            from + rows <= self.rows,
            "rows {from}+{rows} of {}",
            self.rows
        );
        Self {
            at: self.at + (from * self.stride * self.element.size()) as u64,
            rows,
            ..self
        }
    }

    /// The same memory as `cols` columns without gaps.
    pub(super) fn shaped(region: Region, rows: usize, cols: usize, element: Element) -> Self {
        assert!(
            rows * cols * element.size() <= region.bytes,
            "{rows} x {cols} in {}",
            region.bytes
        );
        Self {
            at: region.at,
            rows,
            cols,
            stride: cols,
            element,
        }
    }

    /// All bytes; only for rows without gaps.
    pub(super) fn region(self) -> Region {
        assert_eq!(self.cols, self.stride, "rows with gaps");
        Region {
            at: self.at,
            bytes: self.rows * self.cols * self.element.size(),
        }
    }
}

/// What a product's operands are aligned to.
pub(super) const ALIGNMENT: usize = 256;

/// A stack of pieces of one block.
pub(super) struct Arena {
    base: u64,
    size: usize,
    top: usize,
    peak: usize,
}

/// A height of the stack to go back to.
#[derive(Clone, Copy)]
pub(super) struct Mark(usize);

impl Arena {
    /// Over a block of the card.
    pub(super) fn over(block: Region) -> Self {
        Self {
            base: block.at,
            size: block.bytes,
            top: 0,
            peak: 0,
        }
    }

    /// Counts only.
    pub(super) fn counting() -> Self {
        Self {
            base: ALIGNMENT as u64,
            size: usize::MAX,
            top: 0,
            peak: 0,
        }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Region {
        let at = self.top;
        self.top += bytes.next_multiple_of(ALIGNMENT);
        self.peak = self.peak.max(self.top);
        assert!(
            self.top <= self.size,
            "the plan of this step counted {} bytes, and it takes {}",
            self.size,
            self.top
        );
        Region {
            at: self.base + at as u64,
            bytes,
        }
    }

    pub(super) fn rows(&mut self, rows: usize, cols: usize, element: Element) -> Rows {
        Rows::shaped(self.take(rows * cols * element.size()), rows, cols, element)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.top)
    }

    pub(super) fn release(&mut self, mark: Mark) {
        self.top = mark.0;
    }

    /// Most bytes taken at a time so far.
    pub(super) fn peak(&self) -> usize {
        self.peak
    }
}

/// Blocks for what stays: weights, adapter, moments.
pub(super) struct Store {
    open: Region,
    used: usize,
    blocks: Vec<Region>,
}

/// Small pieces share blocks of this size.
const BLOCK: usize = 32 << 20;

impl Store {
    pub(super) fn new() -> Self {
        Self {
            open: Region::default(),
            used: 0,
            blocks: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, device: &Device, bytes: usize) -> Result<Region> {
        let padded = bytes.next_multiple_of(ALIGNMENT);
        let fits = self.used + padded <= self.open.bytes;
        if !fits && padded > BLOCK / 4 {
            let block = device.allocate(padded)?;
            self.blocks.push(block);
            return Ok(block.part(0, bytes));
        }
        if !fits {
            self.reserve(device, BLOCK)?;
        }
        let region = self.open.part(self.used, bytes);
        self.used += padded;
        Ok(region)
    }

    /// Takes a block that what follows lies in, as far as it reaches.
    pub(super) fn reserve(&mut self, device: &Device, bytes: usize) -> Result<()> {
        self.open = device.allocate(bytes)?;
        self.blocks.push(self.open);
        self.used = 0;
        Ok(())
    }

    pub(super) fn upload<T: Copy>(&mut self, device: &Device, values: &[T]) -> Result<Region> {
        let region = self.take(device, size_of_val(values))?;
        device.upload(region, values)?;
        Ok(region)
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|b| b.bytes).sum()
    }

    pub(super) fn free(&mut self, device: &Device) {
        for block in self.blocks.drain(..) {
            device.free(block);
        }
        (self.open, self.used) = (Region::default(), 0);
    }
}
