//! A flame graph: each frame as wide as the part of the samples that it was in, on top of its caller. Whole names and
//! numbers come up where the pointer rests.

use super::stacks::Frame;

const WIDTH: f64 = 1600.0;
const MARGIN: f64 = 10.0;
/// For the title.
const HEAD: f64 = 40.0;
const ROW: f64 = 16.0;
/// Frames that would be narrower are left out.
const NARROWEST: f64 = 0.3;
/// Of the font's letters, which all have the same.
const LETTER: f64 = 6.7;

/// Draws all samples.
pub(super) fn draw(title: &str, all: &Frame) -> String {
    let scale = (WIDTH - 2.0 * MARGIN) / all.count.max(1) as f64;
    let height = HEAD + levels(all, scale) as f64 * ROW + MARGIN;
    let mut picture = Picture { text: String::new(), samples: all.count, scale, height };
    picture.text.push_str(&format!(
        r##"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{MARGIN}" y="24" font-size="15">{}</text>
"##,
        escaped(title)
    ));
    picture.frame("all", all, MARGIN, 0);
    picture.text.push_str("</svg>\n");
    picture.text
}

/// How high the frames are stacked that are wide enough.
fn levels(frame: &Frame, scale: f64) -> usize {
    let wide = frame.callees.values().filter(|callee| is_wide(callee, scale));
    1 + wide.map(|callee| levels(callee, scale)).max().unwrap_or(0)
}

fn is_wide(frame: &Frame, scale: f64) -> bool {
    frame.count as f64 * scale >= NARROWEST
}

struct Picture {
    text: String,
    samples: u64,
    /// Width of a sample.
    scale: f64,
    height: f64,
}

impl Picture {
    /// Draws a frame and what it called, the widest first.
    fn frame(&mut self, name: &str, frame: &Frame, x: f64, level: usize) {
        let width = frame.count as f64 * self.scale;
        let y = self.height - MARGIN - (level + 1) as f64 * ROW;
        let percent = frame.count as f64 * 100.0 / self.samples.max(1) as f64;
        self.text.push_str(&format!(
            r#"<g><title>{}: {} samples, {percent:.2} %</title><rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}" fill="{}" rx="1"/>"#,
            escaped(name),
            frame.count,
            ROW - 1.0,
            colour(name),
        ));
        let letters = ((width - 4.0) / LETTER).max(0.0) as usize;
        if letters >= 3 {
            let (x, y) = (x + 2.0, y + ROW - 5.0);
            self.text.push_str(&format!(r#"<text x="{x:.1}" y="{y:.1}">{}</text>"#, escaped(&fitted(name, letters))));
        }
        self.text.push_str("</g>\n");
        let mut callees: Vec<_> = frame.callees.iter().filter(|(_, callee)| is_wide(callee, self.scale)).collect();
        callees.sort_by_key(|(_, callee)| std::cmp::Reverse(callee.count));
        let mut x = x;
        for (name, callee) in callees {
            self.frame(name, callee, x, level + 1);
            x += callee.count as f64 * self.scale;
        }
    }
}

/// As much of a name as there is room for.
fn fitted(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    let kept: String = name.chars().take(letters.saturating_sub(2)).collect();
    kept + ".."
}

/// The same for all functions of a crate.
fn colour(name: &str) -> String {
    let of_crate = name.trim_start_matches(['<', '&']).split("::").next().unwrap_or(name);
    let hash = of_crate.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    format!("hsl({}, 65%, 70%)", hash % 360)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flame::stacks;

    fn drawn(script: &str) -> String {
        draw("put & co", &stacks::read(script.as_bytes()).unwrap())
    }

    #[test]
    fn a_frame_is_as_wide_as_its_part_of_the_samples() {
        let sample = |function: &str| format!("worker\n\t1 {function}\n\t2 main\n\n");
        let svg = drawn(&[sample("<A as B>::poll"), sample("<A as B>::poll"), sample("a::c"), sample("a::d")].concat());
        for (name, samples, percent) in
            [("all", 4, "100.00"), ("main", 4, "100.00"), ("&lt;A as B&gt;::poll", 2, "50.00"), ("a::c", 1, "25.00")]
        {
            let title = format!("<title>{name}: {samples} samples, {percent} %</title>");
            assert!(svg.contains(&title), "{title} in {svg}");
        }
        assert_eq!(svg.matches(r#"width="1580.0""#).count(), 3, "all, the thread, and main");
        assert_eq!(svg.matches(r#"width="790.0""#).count(), 1);
        assert_eq!(svg.matches(r#"width="395.0""#).count(), 2);
        assert!(svg.contains(">put &amp; co</text>"));
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        assert!(svg.ends_with("</svg>\n"));
        assert_eq!(colour("a::c"), colour("<a::T as b::U>::d"));
    }

    #[test]
    fn what_is_too_narrow_to_be_seen_is_left_out() {
        let many = "worker\n\t1 often\n\n".repeat(10_000);
        let svg = drawn(&(many + "worker\n\t1 deep\n\t1 once\n\n"));
        assert!(svg.contains("often: 10000 samples") && !svg.contains("once") && !svg.contains("deep"), "{svg}");
        assert!(svg.contains(&format!(r#"height="{}""#, HEAD + 3.0 * ROW + MARGIN)), "{svg}");
    }

    #[test]
    fn names_are_cut_where_there_is_no_room() {
        assert_eq!(fitted("abcdef", 6), "abcdef");
        assert_eq!(fitted("abcdefg", 6), "abcd..");
        assert_eq!(fitted("äöü", 3), "äöü");
    }

    #[test]
    fn nothing_can_be_drawn() {
        assert!(drawn("").contains("all: 0 samples, 0.00 %"));
    }
}
