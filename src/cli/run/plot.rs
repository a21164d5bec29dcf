//! The figures of a run as a picture in SVG: a bar for the mean of each kind of operation, with the
//! standard deviation to both sides.

use std::error::Error;

use plotters::prelude::*;

use super::figures::{OperationFigures, Summary};

const WIDTH: u32 = 760;
const BAR_HEIGHT: u32 = 44;
/// The title, the axis with its description, and the margins.
const REST_HEIGHT: u32 = 110;
/// The names of the operations.
const NAMES_WIDTH: u32 = 90;
const BAR: RGBColor = RGBColor(126, 156, 201);
/// No operation takes less.
const TIME_US_MIN: f64 = 0.001;
/// The part of the width that bars and deviations take; the rest is for their figures.
const BARS_PART: f64 = 0.6;

/// Draws the figures. An error would be one of the drawing library.
pub fn draw(summary: &Summary) -> Result<String, Box<dyn Error>> {
    let done: Vec<&OperationFigures> = summary.operations.iter().filter(|o| o.count > 0).collect();
    let count = i32::try_from(done.len())?;
    let mut svg = String::new();
    let height = REST_HEIGHT + BAR_HEIGHT * count.max(1) as u32;
    let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let ends_ms = done.iter().map(|o| (o.mean_us + o.deviation_us) / 1e3);
    let longest_ms = ends_ms.fold(TIME_US_MIN / 1e3, f64::max);
    let width_ms = longest_ms / BARS_PART;
    // This axis has a place for its end, too, and needs two places.
    let last = (count - 1).max(1);
    let mut chart = ChartBuilder::on(&area)
        .caption(title(summary), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(NAMES_WIDTH)
        .build_cartesian_2d(0.0..width_ms, (0..last).into_segmented())?;
    // The first operation is at the top.
    let at = |place: i32| usize::try_from(count - 1 - place).ok();
    let name = |place: &SegmentValue<i32>| match place {
        SegmentValue::CenterOf(place) => at(*place)
            .and_then(|at| done.get(at))
            .map_or_else(String::new, |o| o.name.to_owned()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .max_light_lines(1)
        .y_labels(done.len().max(1))
        .y_label_formatter(&name)
        .x_label_formatter(&|ms| format!("{ms:.*}", decimals(width_ms)))
        .x_desc("time of one operation in ms: mean and standard deviation")
        .label_style(("sans-serif", 13))
        .draw()?;
    for (place, figures) in (0..count).rev().zip(done.iter().copied()) {
        let [mean, deviation] = [figures.mean_us, figures.deviation_us].map(|us| us / 1e3);
        let mut bar = Rectangle::new(
            [
                (0.0, SegmentValue::Exact(place)),
                (mean, SegmentValue::Exact(place + 1)),
            ],
            BAR.filled(),
        );
        bar.set_margin(9, 9, 0, 0);
        chart.draw_series([bar])?;
        let (least, most) = ((mean - deviation).max(0.0), mean + deviation);
        let middle = || SegmentValue::CenterOf(place);
        let whiskers = ErrorBar::new_horizontal(middle(), least, mean, most, BLACK.filled(), 8);
        chart.draw_series([whiskers])?;
        let text = Text::new(words(figures), (10, -5), ("sans-serif", 13));
        chart.draw_series([EmptyElement::at((most, middle())) + text])?;
    }
    area.present()?;
    drop(chart);
    drop(area);
    Ok(svg)
}

/// The decimals that tell about ten marks on an axis of that length apart.
fn decimals(length: f64) -> usize {
    (1.0 - length.log10()).ceil().clamp(0.0, 9.0) as usize
}

fn title(summary: &Summary) -> String {
    let Summary { count, failed, .. } = summary;
    let (seconds, per_second) = (summary.seconds, summary.per_second());
    format!("{count} done, {failed} failed in {seconds:.3} s: {per_second:.0} a second")
}

fn words(figures: &OperationFigures) -> String {
    let [mean, deviation] = [figures.mean_us, figures.deviation_us].map(|us| us / 1e3);
    let per_second = 1e6 / figures.mean_us.max(TIME_US_MIN);
    let count = figures.count;
    format!("{mean:.3} ms, sd {deviation:.3}; {per_second:.0} a second; {count} done")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::figures::Figures;
    use super::*;

    fn drawn(figures: &mut Figures) -> String {
        draw(&figures.summary(Duration::from_secs(2))).expect("it can be drawn")
    }

    #[test]
    fn each_kind_of_operation_that_was_done_has_a_bar_with_its_figures() {
        let mut figures = Figures::default();
        for ms in [2, 4] {
            figures.add("GET", Duration::from_millis(ms), true);
        }
        figures.add("PUT", Duration::from_millis(5), true);
        figures.add("DELETE", Duration::from_millis(9), false);
        let svg = drawn(&mut figures);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for expected in [
            "3 done, 1 failed in 2.000 s: 2 a second",
            "GET",
            "3.000 ms, sd 1.414; 333 a second; 2 done",
            "PUT",
            "5.000 ms, sd 0.000; 200 a second; 1 done",
        ] {
            assert!(svg.contains(expected), "{expected}: {svg}");
        }
        assert!(!svg.contains("DELETE"), "nothing of it was measured");
        let place = |name: &str| {
            let before = svg.split(&format!("\n{name}\n")).next().expect("a part");
            let tag = before.rsplit("<text").next().expect("the tag");
            let y = tag.split(" y=\"").nth(1).expect("its place");
            y.split('"').next().and_then(|y| y.parse::<u32>().ok())
        };
        assert!(place("GET") < place("PUT"), "the first one is at the top");
    }

    #[test]
    fn a_single_kind_has_its_bar_and_its_name() {
        let mut figures = Figures::default();
        figures.add("PUT", Duration::from_millis(5), true);
        let svg = drawn(&mut figures);
        let bar = svg.lines().find(|line| line.contains("fill=\"#7E9CC9\""));
        assert!(bar.is_some_and(|bar| !bar.contains("width=\"0\"")), "{svg}");
        assert!(svg.contains("\nPUT\n"), "{svg}");
    }

    #[test]
    fn marks_differ() {
        for (length, expected) in [
            (0.000_001, 7),
            (0.13, 2),
            (1.2, 1),
            (7.0, 1),
            (60.0, 0),
            (5e9, 0),
        ] {
            assert_eq!(decimals(length), expected, "{length}");
        }
    }

    #[test]
    fn a_run_in_which_nothing_was_done_is_drawn_too() {
        let empty = drawn(&mut Figures::default());
        assert!(empty.contains("0 done, 0 failed"));
        let mut figures = Figures::default();
        figures.add("PUT", Duration::ZERO, false);
        assert!(drawn(&mut figures).contains("0 done, 1 failed"));
        figures.add("PUT", Duration::ZERO, true);
        let svg = drawn(&mut figures);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
