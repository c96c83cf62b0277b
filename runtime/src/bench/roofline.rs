//! The results as a picture: operations per second over operations per byte, below the two limits of the machine.
//!
//! Points are numbered, and a list beside the picture names them: names at the points would cover each other.

use std::fmt::Write;

use super::machine::Limits;
use super::report::{OpTime, PhaseKind, Rates, Report};

/// Ops that take a smaller share of a phase are left out: there are many of them, and they decide nothing.
const OP_SHARE_MIN: f64 = 0.01;

const PLOT_LEFT: f64 = 64.0;
const PLOT_TOP: f64 = 76.0;
const PLOT_WIDTH: f64 = 560.0;
const PLOT_HEIGHT_MIN: f64 = 420.0;
const LIST_LEFT: f64 = PLOT_LEFT + PLOT_WIDTH + 36.0;
const LIST_WIDTH: f64 = 420.0;
const LIST_LINE: f64 = 18.0;
const BOTTOM: f64 = 64.0;
/// Half the size of the box around a number that no other number may touch.
const NUMBER_BOX: (f64, f64) = (8.0, 6.5);
/// How far from its point a number may be. From the second distance on a line leads to it.
const NUMBER_DISTANCES: [f64; 6] = [13.0, 24.0, 36.0, 50.0, 66.0, 84.0];
/// Directions in which it may be.
const N_DIRECTIONS: u32 = 12;

/// Colours for light pages and, where the reader prefers them, for dark ones.
const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#1c2128}
.title{font-size:16px;font-weight:600}.small{font-size:11px}.number{font-size:11px;text-anchor:middle}
.paper,.op .mark{fill:#ffffff}
.grid{stroke:#d5dae1;stroke-width:1}.limit{stroke:#57606a;stroke-width:2;fill:none}.mark{stroke-width:2}.lead{stroke:#57606a;stroke-width:.75}
.prefill .mark{stroke:#1d5fd1}.decode .mark{stroke:#b4430a}.served .mark{stroke:#11773c}
.prefill.step .mark{fill:#1d5fd1}.decode.step .mark{fill:#b4430a}.served.step .mark{fill:#11773c}
@media (prefers-color-scheme:dark){
text{fill:#e6eaf0}.paper,.op .mark{fill:#15191f}.grid{stroke:#39414c}.limit,.lead{stroke:#a9b4c0}
.prefill .mark{stroke:#82b1ff}.decode .mark{stroke:#ffab70}.served .mark{stroke:#6fdc98}
.prefill.step .mark{fill:#82b1ff}.decode.step .mark{fill:#ffab70}.served.step .mark{fill:#6fdc98}
}
";

/// Something that was measured.
struct Point {
    class: &'static str,
    is_op: bool,
    name: String,
    /// Operations per byte.
    intensity: f64,
    gflop_s: f64,
    of_limit: Option<f64>,
}

/// Axes with logarithmic scales, in powers of ten.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
    height: f64,
}

impl Report {
    /// The picture, as SVG. Of work without operations there is nothing to see in it.
    pub fn svg(&self) -> String {
        let points = points(self);
        let limits = self.probe.limits();
        match limits.and_then(|limits| Some((Axes::of(&points, &limits)?, limits))) {
            Some((axes, limits)) => draw(self, &points, &axes, &limits),
            None => "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n".to_owned(),
        }
    }
}

fn draw(report: &Report, points: &[Point], axes: &Axes, limits: &Limits) -> String {
    let (width, height) = (LIST_LEFT + LIST_WIDTH, PLOT_TOP + axes.height + BOTTOM);
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">"
    ));
    line(format!("<style>\n{STYLE}</style>"));
    line(format!(
        "<rect width=\"{width}\" height=\"{height}\" class=\"paper\"/>"
    ));
    head(report, &mut line);
    axes.draw(&mut line);
    axes.draw_limits(limits, &mut line);
    axes.draw_points(points, &mut line);
    list(points, &mut line);
    line("</svg>".to_owned());
    out
}

fn points(report: &Report) -> Vec<Point> {
    let mut points = Vec::new();
    let mut add = |class, name: String, rates: &Rates, is_op| {
        if rates.flops > 0 && rates.bytes > 0 {
            points.push(Point {
                class,
                is_op,
                name,
                intensity: rates.flops as f64 / rates.bytes as f64,
                gflop_s: rates.gflop_s,
                of_limit: rates.of_limit,
            });
        }
    };
    for phase in &report.steps {
        let class = match phase.kind {
            PhaseKind::Prefill => "prefill",
            PhaseKind::Decode => "decode",
        };
        let name = format!("{}: {:.1} tokens/s", phase.title(), phase.tokens_per_s);
        add(class, name, &phase.rates, false);
        let is_large = |op: &&OpTime| op.share >= OP_SHARE_MIN;
        for op in phase.ops.iter().filter(is_large) {
            let name = format!("{}, {:.0} % of the time", op.op, 100.0 * op.share);
            add(class, name, &op.rates, true);
        }
    }
    if let Some(served) = &report.served {
        let name = format!(
            "{} streams served: {:.1} tokens/s",
            served.streams, served.tokens_per_s
        );
        add("served", name, &served.rates, false);
    }
    points
}

impl Axes {
    fn of(points: &[Point], limits: &Limits) -> Option<Axes> {
        let ridge = limits.fma_f32_gflop_s / limits.read_gb_s();
        let xs = points
            .iter()
            .map(|point| point.intensity)
            .chain([ridge / 4.0, ridge * 4.0]);
        let ys = points
            .iter()
            .map(|point| point.gflop_s)
            .chain([limits.fma_f32_gflop_s * 1.5]);
        let list_height = LIST_LINE * (points.len() + 1) as f64;
        (!points.is_empty()).then(|| Axes {
            x: decades(xs),
            y: decades(ys),
            height: PLOT_HEIGHT_MIN.max(list_height),
        })
    }

    fn at_x(&self, intensity: f64) -> f64 {
        let (from, to) = self.x;
        PLOT_LEFT + PLOT_WIDTH * (intensity.log10() - from) / (to - from)
    }

    fn at_y(&self, gflop_s: f64) -> f64 {
        let (from, to) = self.y;
        PLOT_TOP + self.height * (to - gflop_s.log10()) / (to - from)
    }

    fn draw(&self, line: &mut impl FnMut(String)) {
        let (right, bottom) = (PLOT_LEFT + PLOT_WIDTH, PLOT_TOP + self.height);
        for decade in self.x.0 as i32..=self.x.1 as i32 {
            let x = self.at_x(10f64.powi(decade));
            line(format!(
                "<path class=\"grid\" d=\"M{x:.1} {PLOT_TOP}V{bottom}\"/>"
            ));
            let y = bottom + 18.0;
            let label = power(decade);
            line(format!(
                "<text class=\"small\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>"
            ));
        }
        for decade in self.y.0 as i32..=self.y.1 as i32 {
            let y = self.at_y(10f64.powi(decade));
            line(format!(
                "<path class=\"grid\" d=\"M{PLOT_LEFT} {y:.1}H{right}\"/>"
            ));
            let (x, y) = (PLOT_LEFT - 8.0, y + 4.0);
            let label = power(decade);
            line(format!(
                "<text class=\"small\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>"
            ));
        }
        let (x, y) = (PLOT_LEFT + PLOT_WIDTH / 2.0, bottom + 42.0);
        line(format!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">operations per byte that is read or written</text>"
        ));
        let (x, y) = (18.0, PLOT_TOP + self.height / 2.0);
        line(format!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})\">GFLOP/s</text>"
        ));
    }

    fn draw_limits(&self, limits: &Limits, line: &mut impl FnMut(String)) {
        let (read, fma) = (limits.read_gb_s(), limits.fma_f32_gflop_s);
        let ridge = fma / read;
        // The slanted limit begins where it enters the picture.
        let first = (10f64.powf(self.y.0) / read).max(10f64.powf(self.x.0));
        let (x0, y0) = (self.at_x(first), self.at_y(first * read));
        let (x1, y1) = (self.at_x(ridge), self.at_y(fma));
        let right = PLOT_LEFT + PLOT_WIDTH;
        line(format!(
            "<path class=\"limit\" d=\"M{x0:.1} {y0:.1}L{x1:.1} {y1:.1}H{right}\"/>"
        ));
        let (x, y) = (right - 6.0, y1 - 8.0);
        line(format!(
            "<text class=\"small\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">f32 multiply-adds, {fma:.0} GFLOP/s</text>"
        ));
        let degrees = (y1 - y0).atan2(x1 - x0).to_degrees();
        let (x, y) = ((x0 + x1) / 2.0, (y0 + y1) / 2.0);
        line(format!(
            "<text class=\"small\" x=\"{x:.1}\" y=\"{y:.1}\" dy=\"-8\" text-anchor=\"middle\" transform=\"rotate({degrees:.1} {x:.1} {y:.1})\">reading memory, {read:.1} GB/s</text>"
        ));
    }

    fn draw_points(&self, points: &[Point], line: &mut impl FnMut(String)) {
        let places: Vec<(f64, f64)> = points
            .iter()
            .map(|point| (self.at_x(point.intensity), self.at_y(point.gflop_s)))
            .collect();
        let mut taken = places.clone();
        let mut numbers = Vec::new();
        for &place in &places {
            let number = number_place(place, &taken);
            taken.push(number);
            numbers.push(number);
        }
        for (&(x0, y0), &(x1, y1)) in places.iter().zip(&numbers) {
            let distance = (x1 - x0).hypot(y1 - y0);
            if distance > 1.5 * NUMBER_DISTANCES[0] {
                // The line ends before the number.
                let part = 1.0 - NUMBER_BOX.0 / distance;
                let (x1, y1) = (x0 + part * (x1 - x0), y0 + part * (y1 - y0));
                line(format!(
                    "<path class=\"lead\" d=\"M{x0:.1} {y0:.1}L{x1:.1} {y1:.1}\"/>"
                ));
            }
        }
        for kind in [false, true] {
            let of_kind = points
                .iter()
                .zip(&places)
                .filter(|(point, _)| point.is_op == kind);
            of_kind.for_each(|(point, &place)| line(mark(point, place)));
        }
        for (idx, (x, y)) in numbers.into_iter().enumerate() {
            let (number, y) = (idx + 1, y + 4.0);
            line(format!(
                "<text class=\"number\" x=\"{x:.1}\" y=\"{y:.1}\">{number}</text>"
            ));
        }
    }
}

/// Whole powers of ten around some numbers.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let logs: Vec<f64> = values.map(f64::log10).collect();
    let low = logs.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
    (low, high.max(low + 1.0))
}

/// A power of ten.
fn power(decade: i32) -> String {
    let value = 10f64.powi(decade);
    match usize::try_from(-decade) {
        Ok(digits) => format!("{value:.digits$}"),
        Err(_) => format!("{value:.0}"),
    }
}

/// The nearest place around a point where a number touches no other and no point, or the first place of all.
fn number_place((x, y): (f64, f64), taken: &[(f64, f64)]) -> (f64, f64) {
    let touches = |a: (f64, f64), b: (f64, f64)| {
        (a.0 - b.0).abs() < 2.0 * NUMBER_BOX.0 && (a.1 - b.1).abs() < 2.0 * NUMBER_BOX.1
    };
    let places = NUMBER_DISTANCES.iter().flat_map(|distance| {
        (0..N_DIRECTIONS).map(move |direction| {
            let angle = f64::from(direction) / f64::from(N_DIRECTIONS) * std::f64::consts::TAU;
            (x + distance * angle.cos(), y - distance * angle.sin())
        })
    });
    let is_own = |other: &(f64, f64)| *other == (x, y);
    let mut free = places.filter(|place| {
        let mut others = taken.iter().filter(|other| !is_own(other));
        !others.any(|other| touches(*place, *other))
    });
    free.next().unwrap_or((x + NUMBER_DISTANCES[0], y))
}

/// A circle for a prompt, a square for decoding, a diamond for streams; ops are smaller and hollow.
fn mark(point: &Point, (x, y): (f64, f64)) -> String {
    let size = if point.is_op { 3.5 } else { 5.5 };
    let shape = match point.class {
        "prefill" => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size}\"/>"),
        "decode" => {
            let (x, y, side) = (x - size, y - size, 2.0 * size);
            format!("<rect class=\"mark\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side}\" height=\"{side}\"/>")
        }
        _ => {
            let size = 1.4 * size;
            let (left, right, top, bottom) = (x - size, x + size, y - size, y + size);
            format!(
                "<path class=\"mark\" d=\"M{left:.1} {y:.1}L{x:.1} {top:.1}L{right:.1} {y:.1}L{x:.1} {bottom:.1}Z\"/>"
            )
        }
    };
    let kind = if point.is_op { "op" } else { "step" };
    let name = escaped(&point.name);
    format!(
        "<g class=\"{} {kind}\"><title>{name}</title>{shape}</g>",
        point.class
    )
}

fn head(report: &Report, line: &mut impl FnMut(String)) {
    let machine = &report.machine;
    let model = &report.model;
    let title = format!(
        "{} on {}, {} threads",
        model.architecture, machine.processor, machine.threads
    );
    line(format!(
        "<text class=\"title\" x=\"{PLOT_LEFT}\" y=\"30\">{}</text>",
        escaped(&title)
    ));
    let facts = format!(
        "{:.2} G parameters in {}, {:.2} GB of weights; {}",
        model.parameters as f64 / 1e9,
        model.dtype,
        model.weights_bytes as f64 / 1e9,
        machine.instructions,
    );
    line(format!(
        "<text x=\"{PLOT_LEFT}\" y=\"52\">{}</text>",
        escaped(&facts)
    ));
}

fn list(points: &[Point], line: &mut impl FnMut(String)) {
    for (idx, point) in points.iter().enumerate() {
        let y = PLOT_TOP + LIST_LINE * (idx as f64 + 0.5);
        let indent = if point.is_op { 16.0 } else { 0.0 };
        line(mark(point, (LIST_LEFT + 26.0 + indent, y)));
        let mut text = String::new();
        write!(text, "{}", escaped(&point.name)).expect("a text can be written to");
        if let Some(share) = point.of_limit {
            write!(text, " ({:.0} % of the limit)", 100.0 * share).expect("a text can be written to");
        }
        let (number, y) = (idx + 1, y + 4.0);
        line(format!(
            "<text class=\"small\" x=\"{}\" y=\"{y}\" text-anchor=\"end\">{number}</text>",
            LIST_LEFT + 14.0
        ));
        line(format!(
            "<text class=\"small\" x=\"{}\" y=\"{y}\">{text}</text>",
            LIST_LEFT + 38.0 + indent
        ));
    }
}

/// A text between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_written_without_a_remainder() {
        assert_eq!([-2, -1, 0, 1, 3].map(power), ["0.01", "0.1", "1", "10", "1000"]);
    }

    #[test]
    fn axes_have_whole_decades() {
        assert_eq!(decades([0.3, 42.0].into_iter()), (-1.0, 2.0));
        assert_eq!(decades([10.0].into_iter()), (1.0, 2.0));
    }

    #[test]
    fn numbers_avoid_each_other() {
        let point = (100.0, 100.0);
        let mut taken = vec![point];
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let (x, y) = number_place(point, &taken);
            places.insert((x as i64, y as i64));
            taken.push((x, y));
        }
        assert_eq!(number_place(point, &[point]), (113.0, 100.0));
        assert_eq!(places.len(), 20);
    }

    #[test]
    fn names_are_no_tags() {
        assert_eq!(escaped("a < b & c > d"), "a &lt; b &amp; c &gt; d");
    }
}
