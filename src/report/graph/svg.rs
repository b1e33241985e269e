//! The graph as SVG: columns from left to right, each stage as far left as its inputs
//! allow, rows ordered by the middle of what they read. An arrow over several columns
//! keeps a row free in each of them, so that it crosses no box.
//!
//! Promises: no scripts, no fonts and no files from elsewhere; readable on light and
//! dark pages. Source: Sugiyama, Tagawa, Toda 1981, without the crossing minimum.

use super::Picture;

/// Height of a box, pixels.
const BOX: usize = 28;
/// From one row to the next, pixels.
const ROW: usize = 44;
/// Between columns, pixels.
const GAP: usize = 56;
/// Width of a letter of the 13-pixel monospace font, pixels, rounded up.
const LETTER: usize = 8;
/// Around the picture, pixels.
const MARGIN: usize = 12;

/// Boxes and the free rows of long arrows, as one numbering: boxes first.
struct Layout {
    /// Column of each.
    column: Vec<usize>,
    /// Steps from one column to the next.
    steps: Vec<(usize, usize)>,
    /// Who stands in each column, from the top.
    columns: Vec<Vec<usize>>,
}

struct Place {
    x: usize,
    y: usize,
    width: usize,
}

pub(super) fn draw(picture: &Picture<'_>) -> String {
    let layout = Layout::new(picture);
    let places = layout.places(picture);
    let boxes = picture.boxes.len();
    let width = places.iter().map(|place| place.x + place.width).max();
    let height = places.iter().map(|place| place.y + BOX).max();
    let (width, height) = (width.unwrap_or(0) + MARGIN, height.unwrap_or(0) + MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"monospace\" font-size=\"13\" \
         fill=\"none\" stroke=\"#57606a\">\n"
    );
    for (from, to) in &layout.steps {
        out.push_str(&step(&places[*from], &places[*to], *to < boxes));
    }
    for place in &places[boxes..] {
        let (x, y) = (place.x, place.y + BOX / 2);
        out.push_str(&format!("<path d=\"M{x} {y} h{}\"/>\n", place.width));
    }
    for (shown, place) in picture.boxes.iter().zip(&places) {
        out.push_str(&stage(shown, place));
    }
    out + "</svg>\n"
}

fn stage(shown: &super::Shown<'_>, place: &Place) -> String {
    let dash = if shown.external {
        " stroke-dasharray=\"5 4\""
    } else {
        ""
    };
    let title = match shown.about {
        "" => String::new(),
        about => format!("<title>{}</title>", escaped(about)),
    };
    format!(
        "<g>{title}<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{BOX}\" rx=\"5\" \
         fill=\"#f6f8fa\"{dash}/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\" \
         fill=\"#24292f\" stroke=\"none\">{}</text></g>\n",
        place.x,
        place.y,
        place.width,
        place.x + place.width / 2,
        place.y + BOX / 2 + 4,
        escaped(shown.id),
    )
}

/// A curve to the next column, with a head where it reaches a box.
fn step(from: &Place, to: &Place, head: bool) -> String {
    let (x0, y0) = (from.x + from.width, from.y + BOX / 2);
    let (x1, y1) = (to.x, to.y + BOX / 2);
    let bend = x1.saturating_sub(x0) / 2;
    let (left, right) = (x0 + bend, x1 - bend);
    let mut out = format!("<path d=\"M{x0} {y0} C{left} {y0} {right} {y1} {x1} {y1}\"/>");
    if head {
        let arrow = format!("<path d=\"M{x1} {y1} l-7 -4 v8 z\" fill=\"#57606a\"/>");
        out.push_str(&arrow);
    }
    out + "\n"
}

impl Layout {
    fn new(picture: &Picture<'_>) -> Self {
        let edges = picture.edges();
        let mut column = vec![0; picture.boxes.len()];
        // Arrows go forward in the order of the boxes: sorted by target, one pass finds
        // the longest way from the left.
        let mut by_target: Vec<_> = edges.iter().map(|(from, to)| (*to, *from)).collect();
        by_target.sort_unstable();
        for (to, from) in by_target {
            column[to] = column[to].max(column[from] + 1);
        }
        let mut steps = Vec::new();
        for (from, to) in edges {
            let mut last = from;
            for between in column[from] + 1..column[to] {
                column.push(between);
                steps.push((last, column.len() - 1));
                last = column.len() - 1;
            }
            steps.push((last, to));
        }
        let mut columns = vec![Vec::new(); column.iter().max().map_or(0, |deepest| deepest + 1)];
        for (at, column) in column.iter().enumerate() {
            columns[*column].push(at);
        }
        let mut layout = Self {
            column,
            steps,
            columns,
        };
        layout.order();
        layout
    }

    /// One sweep to the right: each one near the middle of what leads to it.
    fn order(&mut self) {
        let mut before: Vec<Vec<usize>> = vec![Vec::new(); self.column.len()];
        for (from, to) in &self.steps {
            before[*to].push(*from);
        }
        let mut row = vec![0.0; self.column.len()];
        for column in &mut self.columns {
            let mut keyed: Vec<(f64, usize)> = column
                .iter()
                .enumerate()
                .map(|(nth, at)| {
                    let rows = before[*at].iter().map(|from| row[*from]);
                    let count = before[*at].len();
                    let middle = rows.sum::<f64>() / count as f64;
                    (if count > 0 { middle } else { nth as f64 }, *at)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            *column = keyed.into_iter().map(|(_, at)| at).collect();
            for (nth, at) in column.iter().enumerate() {
                row[*at] = nth as f64;
            }
        }
    }

    fn places(&self, picture: &Picture<'_>) -> Vec<Place> {
        let tallest = self.columns.iter().map(Vec::len).max().unwrap_or(0);
        let blank = || Place {
            x: 0,
            y: 0,
            width: 0,
        };
        let mut places: Vec<Place> = self.column.iter().map(|_| blank()).collect();
        let mut x = MARGIN;
        for column in &self.columns {
            let boxes = column.iter().filter_map(|at| picture.boxes.get(*at));
            let longest = boxes
                .map(|shown| shown.id.chars().count())
                .max()
                .unwrap_or(0);
            let width = longest * LETTER + 20;
            let top = MARGIN + (tallest - column.len()) * ROW / 2;
            for (nth, at) in column.iter().enumerate() {
                let y = top + nth * ROW;
                places[*at] = Place { x, y, width };
            }
            x += width + GAP;
        }
        places
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
