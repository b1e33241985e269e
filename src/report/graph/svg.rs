//! The graph as SVG: columns from left to right, each stage as far left as its inputs
//! allow, rows ordered by the middle of their neighbours.
//!
//! Promises: no scripts, no fonts and no files from elsewhere; readable on light and
//! dark pages.

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

struct Place {
    x: usize,
    y: usize,
    width: usize,
}

pub(super) fn draw(picture: &Picture<'_>) -> String {
    let columns = columns(picture);
    let places = places(picture, &columns);
    let width = places
        .iter()
        .map(|place| place.x + place.width)
        .max()
        .unwrap_or(0)
        + MARGIN;
    let height = places.iter().map(|place| place.y + BOX).max().unwrap_or(0) + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"monospace\" font-size=\"13\" \
         color=\"#24292f\" fill=\"none\" stroke=\"#57606a\">\n"
    );
    for (from, to) in picture.edges() {
        out.push_str(&arrow(&places[from], &places[to]));
    }
    for (shown, place) in picture.boxes.iter().zip(&places) {
        let dash = if shown.external {
            " stroke-dasharray=\"5 4\""
        } else {
            ""
        };
        let title = match shown.about {
            "" => String::new(),
            about => format!("<title>{}</title>", escaped(about)),
        };
        out.push_str(&format!(
            "<g>{title}<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{BOX}\" rx=\"5\" \
             fill=\"#f6f8fa\"{dash}/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\" \
             fill=\"#24292f\" stroke=\"none\">{}</text></g>\n",
            place.x,
            place.y,
            place.width,
            place.x + place.width / 2,
            place.y + BOX / 2 + 4,
            escaped(shown.id),
        ));
    }
    out + "</svg>\n"
}

fn arrow(from: &Place, to: &Place) -> String {
    let (x0, y0) = (from.x + from.width, from.y + BOX / 2);
    let (x1, y1) = (to.x, to.y + BOX / 2);
    let bend = (x1.saturating_sub(x0)) / 2;
    format!(
        "<path d=\"M{x0} {y0} C{} {y0} {} {y1} {} {y1}\"/>\
         <path d=\"M{x1} {y1} l-7 -4 v8 z\" fill=\"#57606a\"/>\n",
        x0 + bend,
        x1 - bend,
        x1 - 6,
    )
}

/// The boxes of each column. Arrows go forward in the order of the boxes, so one pass
/// finds the longest way from the left.
fn columns(picture: &Picture<'_>) -> Vec<Vec<usize>> {
    let edges = picture.edges();
    let mut depth = vec![0; picture.boxes.len()];
    let mut by_target: Vec<(usize, usize)> = edges.iter().map(|(from, to)| (*to, *from)).collect();
    by_target.sort_unstable();
    for (to, from) in by_target {
        depth[to] = depth[to].max(depth[from] + 1);
    }
    let mut columns = vec![Vec::new(); depth.iter().max().map_or(0, |deepest| deepest + 1)];
    for (at, depth) in depth.into_iter().enumerate() {
        columns[depth].push(at);
    }
    // Three sweeps to the right: each box near the middle of what it reads.
    for _ in 0..3 {
        let mut row = vec![0.0; picture.boxes.len()];
        for column in &mut columns {
            let middle = |at: usize, row: &[f64]| -> Option<f64> {
                let above = edges
                    .iter()
                    .filter(|(_, to)| *to == at)
                    .map(|(from, _)| row[*from]);
                let (sum, count) = above.fold((0.0, 0), |(sum, n), row| (sum + row, n + 1));
                (count > 0).then(|| sum / f64::from(count))
            };
            let mut keyed: Vec<(f64, usize, usize)> = column
                .iter()
                .enumerate()
                .map(|(nth, at)| (middle(*at, &row).unwrap_or(nth as f64), nth, *at))
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            *column = keyed.into_iter().map(|(_, _, at)| at).collect();
            for (nth, at) in column.iter().enumerate() {
                row[*at] = nth as f64;
            }
        }
    }
    columns
}

fn places(picture: &Picture<'_>, columns: &[Vec<usize>]) -> Vec<Place> {
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(0);
    let mut places: Vec<Place> = picture
        .boxes
        .iter()
        .map(|_| Place {
            x: 0,
            y: 0,
            width: 0,
        })
        .collect();
    let mut x = MARGIN;
    for column in columns {
        let longest = column
            .iter()
            .map(|at| picture.boxes[*at].id.chars().count())
            .max();
        let width = longest.unwrap_or(0) * LETTER + 20;
        let top = MARGIN + (tallest - column.len()) * ROW / 2;
        for (nth, at) in column.iter().enumerate() {
            let y = top + nth * ROW;
            places[*at] = Place { x, y, width };
        }
        x += width + GAP;
    }
    places
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
