//! The limits of a run as bars: how many times better than etcd, and how many times were asked for.

use std::fmt::Write;

use super::metric::Basis;
use super::record::Record;

/// The picture's measures, in pixels.
const WIDTH: f64 = 960.0;
const LABEL: f64 = 430.0;
const LINE: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 30.0;
/// From so many times worse to so many times better, as powers of two.
const LOWEST: f64 = -2.0;
const HIGHEST: f64 = 5.0;

/// One bar.
struct Bar {
    label: String,
    times: f64,
    target: f64,
    is_met: bool,
}

/// The run as a picture.
pub(super) fn svg(record: &Record) -> String {
    let mut bars = Vec::new();
    for row in &record.rows {
        for check in row.checks.iter().filter(|check| check.basis == Basis::Ratio) {
            let Some(value) = check.value.filter(|value| *value > 0.0) else { continue };
            let better = |ratio: f64| if check.metric.is_better_larger() { ratio } else { 1.0 / ratio };
            bars.push(Bar {
                label: format!("{} ({}): {}", row.name, row.members, check.metric.title()),
                times: better(value),
                target: better(check.bound),
                is_met: check.is_met == Some(true),
            });
        }
    }
    draw(&bars, &format!("mainstay against etcd, {}, {}", record.date, record.machine.text()))
}

fn place(times: f64) -> f64 {
    let share = (times.log2().clamp(LOWEST, HIGHEST) - LOWEST) / (HIGHEST - LOWEST);
    LABEL + share * (WIDTH - LABEL - 60.0)
}

fn draw(bars: &[Bar], title: &str) -> String {
    let (height, foot) = (TOP + BOTTOM + bars.len() as f64 * LINE, TOP + bars.len() as f64 * LINE);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut put = |line: String| writeln!(svg, "{line}").expect("writing to a string does not fail");
    put(format!("<text x=\"10\" y=\"20\" font-size=\"14\">{}</text>", escaped(title)));
    put("<text x=\"10\" y=\"40\">times better than etcd; the black line is what must be reached</text>".to_owned());
    for power in LOWEST as i32..=HIGHEST as i32 {
        let (times, x) = (f64::from(power).exp2(), place(f64::from(power).exp2()));
        let colour = if power == 0 { "#555" } else { "#ddd" };
        put(format!("<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{foot}\" stroke=\"{colour}\"/>"));
        put(format!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{times}×</text>", foot + 18.0));
    }
    for (number, bar) in bars.iter().enumerate() {
        let (y, one, end, target) = (TOP + number as f64 * LINE, place(1.0), place(bar.times), place(bar.target));
        let (x, width, colour) = (one.min(end), (end - one).abs(), if bar.is_met { "#3a8f4d" } else { "#c4473a" });
        let text = y + 14.0;
        put(format!("<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>", LABEL - 8.0, escaped(&bar.label)));
        put(format!("<rect x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"14\" fill=\"{colour}\"/>", y + 3.0));
        put(format!(
            "<line x1=\"{target:.1}\" y1=\"{}\" x2=\"{target:.1}\" y2=\"{}\" stroke=\"black\" stroke-width=\"2\"/>",
            y + 1.0,
            y + 19.0
        ));
        put(format!("<text x=\"{:.1}\" y=\"{text}\">{:.1}×</text>", one.max(end).max(target) + 5.0, bar.times));
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn each_compared_limit_is_a_bar_of_its_colour() {
        let svg = svg(&record(30_000.0));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!((svg.matches("#c4473a").count(), svg.matches("#3a8f4d").count()), (1, 1), "{svg}");
        assert!(svg.contains(">put (1): per second</text>") && svg.contains(">1.5×</text>"), "{svg}");
        assert!(svg.contains(">get (1): p99 ms</text>") && svg.contains(">2.0×</text>"), "{svg}");
    }

    #[test]
    fn places_grow_with_the_times_and_end_at_the_edges() {
        assert!(place(0.5) < place(1.0) && place(1.0) < place(2.0));
        assert_eq!((place(1e-9), place(1e9)), (place(0.25), place(32.0)));
        assert_eq!(escaped("a<b & c"), "a&lt;b &amp; c");
    }
}
