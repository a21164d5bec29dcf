//! Throughput over the number of clients, a line for each system.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::systems::System;

const SIZE: (u32, u32) = (760, 420);
const FONT: &str = "sans-serif";

pub struct Line {
    pub system: System,
    /// Clients, and operations a second.
    pub points: Vec<(usize, f64)>,
}

fn color(system: System) -> RGBColor {
    match system {
        System::Horseshoe => RGBColor(200, 80, 40),
        System::Etcd => RGBColor(70, 120, 190),
        System::Zookeeper => RGBColor(90, 150, 80),
        System::Redis => RGBColor(140, 100, 170),
    }
}

/// Draws the lines into a file. Both axes are logarithmic.
pub fn draw(path: &Path, title: &str, lines: &[Line]) -> Result<()> {
    draw_lines(path, title, lines).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_lines(
    path: &Path,
    title: &str,
    lines: &[Line],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let clients_max = points().map(|point| point.0).max().unwrap_or(1) as f64;
    let rates = || points().map(|point| point.1).filter(|rate| *rate > 0.0);
    let least = rates().fold(f64::MAX, f64::min) / 1.5;
    let most = rates().fold(1.0, f64::max) * 1.5;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 17))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(74)
        .build_cartesian_2d(
            (0.9..clients_max * 1.15).log_scale(),
            (least..most).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("clients")
        .y_desc("operations a second")
        .x_label_formatter(&|clients| format!("{clients:.0}"))
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .label_style((FONT, 13))
        .light_line_style(WHITE)
        .draw()?;
    for line in lines {
        let color = color(line.system);
        let points = || {
            line.points
                .iter()
                .map(|(clients, rate)| (*clients as f64, *rate))
        };
        chart
            .draw_series(LineSeries::new(points(), color.stroke_width(2)))?
            .label(line.system.to_string())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
        chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(180, 180, 180))
        .label_font((FONT, 13))
        .draw()?;
    area.present()?;
    Ok(())
}
