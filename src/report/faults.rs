//! Configuration faults with their excerpt, a caret and the mend.
//!
//! Promises: the same faults give the same text at the same width; colour only when
//! asked for.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteSpanContents,
    SourceCode, SourceSpan, SpanContents, ThemeStyles,
};

use crate::config::{Fault, Faults, Span};

/// A drawing in which a tab is one column, so that carets stand right.
const TAB: usize = 1;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether to colour.
    pub colour: bool,
    /// Columns of the terminal.
    pub width: usize,
}

/// All faults, one after the other, and their count. Ends with a newline.
pub fn draw(faults: &Faults, look: Look) -> String {
    let mut theme = GraphicalTheme::unicode_nocolor();
    if look.colour {
        theme.styles = ThemeStyles::ansi();
    }
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(look.width)
        .with_links(false)
        .tab_width(TAB)
        .with_context_lines(1);
    let source = Excerpts {
        name: shown_name(faults),
        text: &faults.text,
    };
    let mut out = String::new();
    for (index, fault) in faults.items.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let drawn = Drawn {
            fault,
            source: &source,
            labels: labels(fault, &faults.text),
        };
        handler
            .render_report(&mut out, &drawn)
            .expect("drawing into a string cannot fail");
    }
    if faults.items.len() > 1 {
        out.push_str(&format!("\n{} faults\n", faults.items.len()));
    }
    // miette leaves spaces at the end of some lines; a text for people has none.
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// All faults, a JSON object a line.
pub fn json(faults: &Faults) -> String {
    let file = Some(shown_name(faults)).filter(|name| !name.is_empty());
    let line = |fault: &Fault| {
        let place = fault.span.as_ref().map(|span| faults.place(span.start));
        let told = serde_json::json!({
            "code": fault.code, "message": fault.message, "mend": fault.mend,
            "file": file,
            "line": place.map(|(line, _)| line), "column": place.map(|(_, column)| column),
        });
        format!("{told}\n")
    };
    faults.items.iter().map(line).collect()
}

/// The path as a person at the current folder writes it.
fn shown_name(faults: &Faults) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let file = faults.file.strip_prefix(&here).unwrap_or(&faults.file);
    file.display().to_string()
}

/// Where a label may begin or end: inside the text, between characters.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The places, each cut at the end of its first line: a block of ten lines underlined
/// says less than its first one.
fn labels(fault: &Fault, text: &str) -> Vec<LabeledSpan> {
    let label = (!fault.label.is_empty()).then(|| fault.label.clone());
    let first = fault
        .span
        .iter()
        .map(|span| LabeledSpan::new_primary_with_span(label.clone(), first_line(span, text)));
    let also = fault.also.iter();
    let also = also.map(|(span, label)| {
        LabeledSpan::new_with_span(Some(label.clone()), first_line(span, text))
    });
    first.chain(also).collect()
}

fn first_line(span: &Span, text: &str) -> SourceSpan {
    let start = boundary(text, span.start);
    let line = &text[start..boundary(text, span.end).max(start)];
    let length = line.find(['\n', '\r']).unwrap_or(line.len());
    SourceSpan::from((start, length))
}

struct Excerpts<'a> {
    name: String,
    text: &'a str,
}

impl SourceCode for Excerpts<'_> {
    fn read_span<'s>(
        &'s self,
        span: &SourceSpan,
        context: usize,
        _: usize,
    ) -> Result<Box<dyn SpanContents<'s> + 's>, miette::MietteError> {
        let whole = if context == 0 {
            *span
        } else {
            self.lines(span)
        };
        let contents = self.text.read_span(&whole, 0, 0)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

impl Excerpts<'_> {
    /// The whole lines that a span touches, without the last line's end.
    fn lines(&self, span: &SourceSpan) -> SourceSpan {
        let start = span.offset().min(self.text.len());
        let end = (start + span.len()).min(self.text.len());
        let first = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let last = self.text[end..]
            .find('\n')
            .map_or(self.text.len(), |at| end + at);
        SourceSpan::from((first, last - first))
    }
}

struct Drawn<'a> {
    fault: &'a Fault,
    source: &'a Excerpts<'a>,
    labels: Vec<LabeledSpan>,
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.fault.message)
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.fault.message)
    }
}

impl std::error::Error for Drawn<'_> {}

impl Diagnostic for Drawn<'_> {
    fn code<'c>(&'c self) -> Option<Box<dyn fmt::Display + 'c>> {
        Some(Box::new(&self.fault.code))
    }

    fn help<'h>(&'h self) -> Option<Box<dyn fmt::Display + 'h>> {
        let mend = &self.fault.mend;
        (!mend.is_empty()).then(|| Box::new(mend) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        let drawable = !self.labels.is_empty() && !self.source.text.is_empty();
        drawable.then_some(self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}
