//! What is wrong with a pipeline: place, cause, mend, as data.
//!
//! Promises: faults keep the file's text beside them with secrets blanked, so that any
//! listener can draw the excerpt. Must not know: colours, terminals.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Span;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable code, `config::unknown-key`.
    pub code: String,
    /// Where it stands; `None` when it stands in no file (a missing file, `--set`).
    pub span: Option<Span>,
    /// What is wrong.
    pub message: String,
    /// Short text beside the marked place.
    pub label: String,
    /// Other places that explain it: the first of two equal keys, the edges of a cycle.
    pub also: Vec<(Span, String)>,
    /// How to mend it.
    pub mend: String,
}

/// All faults of one file, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The file.
    pub file: PathBuf,
    /// Its text, with secrets blanked out; spans are byte ranges of it.
    pub text: String,
    /// The faults.
    pub items: Vec<Fault>,
}

impl Fault {
    /// A fault at a place.
    pub fn at(span: &Span, code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            span: Some(span.clone()),
            message: message.into(),
            label: String::new(),
            also: Vec::new(),
            mend: String::new(),
        }
    }

    /// A fault that stands in no file.
    pub fn nowhere(code: &str, message: impl Into<String>) -> Self {
        Self {
            span: None,
            ..Self::at(&(0..0), code, message)
        }
    }

    /// With a short text beside the place.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With the mend.
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = mend.into();
        self
    }

    /// With a second place.
    pub fn also(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.also.push((span.clone(), label.into()));
        self
    }
}

impl Faults {
    /// Sorts the faults by place and drops repetitions (an anchor used twice).
    pub fn new(file: &Path, text: &str, mut items: Vec<Fault>) -> Self {
        items.sort_by(|a, b| {
            let start = |fault: &Fault| fault.span.as_ref().map(|span| (span.start, span.end));
            start(a)
                .cmp(&start(b))
                .then_with(|| a.code.cmp(&b.code))
                .then_with(|| a.message.cmp(&b.message))
        });
        items.dedup();
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            items,
        }
    }

    /// Line and column of a byte offset, both from 1; the column counts characters.
    pub fn place(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Display for Faults {
    /// One line a fault, `pipeline.yaml:3:5: config::unknown-key: message`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.items.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write!(out, "{}", self.file.display())?;
            if let Some(span) = &fault.span {
                let (line, column) = self.place(span.start);
                write!(out, ":{line}:{column}")?;
            }
            write!(out, ": {}: {}", fault.code, fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
