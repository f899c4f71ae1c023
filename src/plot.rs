//! Lines against size as an SVG, with logarithmic axes where values span decades.
//!
//! Written here because it is short: plotters, the usual crate for it, had its last release in 2024 and brings four more.

use std::{error::Error, fmt::Write};

/// The drawing's size, and the frame of the axes within it: left, top, right, bottom.
const SIZE: [f64; 2] = [1000.0, 560.0];
const FRAME: [f64; 4] = [80.0, 50.0, 700.0, 495.0];
/// Paul Tol's "bright" and "vibrant" colours, which are told apart with colour blindness too; then dashed ones again.
const COLOURS: [&str; 10] =
    ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#ee7733", "#009988", "#000000"];

/// Points of one contender, sorted by size.
pub struct Line {
    /// Its name.
    pub name: String,
    /// Size and value.
    pub points: Vec<[f64; 2]>,
}

/// Words on the drawing; the axes' names with their units.
pub struct Axes<'a> {
    /// Above it.
    pub title: &'a str,
    /// Sizes.
    pub x: &'a str,
    /// Values.
    pub y: &'a str,
}

/// One axis: values to places.
struct Scale {
    values: [f64; 2],
    places: [f64; 2],
    log: bool,
}

impl Scale {
    /// Logarithmic if the values span more than a factor of `decades`.
    fn new(values: [f64; 2], places: [f64; 2], factor: f64) -> Self {
        let log = values[0] > 0.0 && values[1] / values[0] > factor;
        let values = match (log, values[1] > values[0]) {
            (true, _) => [values[0] / 1.15, values[1] * 1.15],
            (false, true) => [0.0, values[1] * 1.08],
            (false, false) => [0.0, if values[1] > 0.0 { values[1] * 1.5 } else { 1.0 }],
        };
        Self { values, places, log }
    }

    fn place(&self, value: f64) -> f64 {
        let [low, high] = self.values;
        let share = if self.log { (value / low).ln() / (high / low).ln() } else { (value - low) / (high - low) };
        self.places[0] + share * (self.places[1] - self.places[0])
    }

    /// Values that get a line and a number: round multiples of powers of ten.
    fn ticks(&self) -> Vec<f64> {
        let [low, high] = self.values;
        if self.log {
            let decades = (high / low).log10();
            let steps: &[f64] = match decades {
                d if d > 4.0 => &[1.0],
                d if d > 1.2 => &[1.0, 2.0, 5.0],
                _ => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            };
            let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
            return powers
                .flat_map(|p| steps.iter().map(move |s| s * 10f64.powi(p)))
                .filter(|v| (low..=high).contains(v))
                .collect();
        }
        let rough = high / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| *s >= rough).unwrap_or(10.0 * power);
        (0..).map(|i| f64::from(i) * step).take_while(|v| *v <= high).collect()
    }
}

/// A number in as few letters as it needs.
fn short(value: f64) -> String {
    let plain = |value: f64| format!("{}", (value * 1000.0).round() / 1000.0);
    match value {
        v if v >= 1e9 => format!("{}G", plain(v / 1e9)),
        v if v >= 1e6 => format!("{}M", plain(v / 1e6)),
        v if v >= 1e4 => format!("{}k", plain(v / 1e3)),
        v => plain(v),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The drawing.
///
/// # Errors
/// There are no points.
pub fn svg(axes: &Axes<'_>, lines: &[Line]) -> Result<String, Box<dyn Error>> {
    let ends = |axis: usize| {
        let values = || lines.iter().flat_map(|l| &l.points).map(move |p| p[axis]);
        [values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max)]
    };
    if lines.iter().all(|l| l.points.is_empty()) {
        return Err("--plot: nothing was measured that could be drawn".into());
    }
    let [left, top, right, bottom] = FRAME;
    let x = Scale::new(ends(0), [left, right], 4.0);
    let y = Scale::new(ends(1), [bottom, top], 8.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" width=\"{0}\" height=\"{1}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        SIZE[0], SIZE[1]
    );
    writeln!(out, "<text x=\"{left}\" y=\"28\" font-size=\"16\">{}</text>", escape(axes.title))?;
    for tick in x.ticks() {
        let at = x.place(tick);
        writeln!(out, "<line x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#e4e4e4\"/>")?;
        writeln!(out, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 18.0, short(tick))?;
    }
    for tick in y.ticks() {
        let at = y.place(tick);
        writeln!(out, "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#e4e4e4\"/>")?;
        writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - 8.0, at + 4.5, short(tick))?;
    }
    let (width, height) = (right - left, bottom - top);
    writeln!(out, "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#444444\"/>")?;
    let note = |log: bool| if log { " (logarithmic)" } else { "" };
    let (middle, foot) = ((left + right) / 2.0, bottom + 44.0);
    writeln!(out, "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">{}{}</text>", escape(axes.x), note(x.log))?;
    let side = (top + bottom) / 2.0;
    writeln!(
        out,
        "<text transform=\"translate(22 {side}) rotate(-90)\" text-anchor=\"middle\">{}{}</text>",
        escape(axes.y),
        note(y.log)
    )?;
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dash = if index < COLOURS.len() { "" } else { " stroke-dasharray=\"6 3\"" };
        let places: Vec<_> = line.points.iter().map(|p| [x.place(p[0]), y.place(p[1])]).collect();
        let path: Vec<_> = places.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let path = path.join(" ");
        // Several values at one size are points that no line joins.
        if line.points.windows(2).all(|pair| pair[0][0] < pair[1][0]) {
            writeln!(out, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>")?;
        }
        for [x, y] in &places {
            writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>")?;
        }
        let (at, from) = (top + 10.0 + 18.0 * index as f64, right + 16.0);
        let to = from + 26.0;
        writeln!(
            out,
            "<line x1=\"{from}\" y1=\"{at}\" x2=\"{to}\" y2=\"{at}\" stroke=\"{colour}\" stroke-width=\"3\"{dash}/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            to + 8.0,
            at + 4.5,
            escape(&line.name)
        )?;
    }
    out.push_str("</svg>\n");
    Ok(out)
}
