//! The picture: CPU per request relative to bare hyper, one bar a target, a line from the least to the greatest round.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::{
    BLACK, Circle, EmptyElement, IntoDrawingArea, IntoFont, PathElement, RGBColor, Rectangle,
    SVGBackend, Text,
};
use plotters::style::Color as _;

use crate::rounds::{SetResult, Spread};

const WIDTH: i32 = 820;
const ROW: i32 = 34;
const LEFT: i32 = 190;
const RIGHT: i32 = 90;
const TOP: i32 = 60;
const OURS: RGBColor = RGBColor(0xb4, 0x5f, 0x06);
const OTHERS: RGBColor = RGBColor(0x7a, 0x86, 0x94);
const TEXT: RGBColor = RGBColor(0x70, 0x78, 0x80);

/// Draws the targets of the first set.
pub(crate) fn draw(path: &Path, title: &str, sets: &[SetResult]) -> anyhow::Result<()> {
    let Some(set) = sets.iter().find(|set| set.set == "peers") else { return Ok(()) };
    let Some(base) = set.targets.first() else { return Ok(()) };
    let bars: Vec<(&str, Spread)> = set
        .targets
        .iter()
        .filter_map(|target| {
            Some((target.name, Spread::of(set.ratios(target.name, base.name, "C")?)))
        })
        .collect();
    let height = TOP + ROW * i32::try_from(bars.len())? + 20;
    let size = (u32::try_from(WIDTH)?, u32::try_from(height)?);
    let area = SVGBackend::new(path, size).into_drawing_area();
    let bad = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    let font = |size: i32, colour: &RGBColor| ("sans-serif", size).into_font().color(colour);
    area.draw(&Text::new(title.to_owned(), (16, 18), font(15, &TEXT)))
        .map_err(|error| bad(&error))?;
    let greatest = bars.iter().map(|(_, spread)| spread.greatest).fold(2.0, f64::max);
    // Logarithmic: half and twice are as far from 1.
    let least = bars.iter().map(|(_, spread)| spread.least).fold(0.5, f64::min);
    let at = |value: f64| -> i32 {
        let share = (value / least).ln() / (greatest / least).ln();
        let x = (share * f64::from(WIDTH - LEFT - RIGHT)) as i32;
        LEFT + x
    };
    let bottom = height - 12;
    let one = PathElement::new(vec![(at(1.0), TOP - 8), (at(1.0), bottom)], TEXT.stroke_width(1));
    area.draw(&one).map_err(|error| bad(&error))?;
    for (row, (name, spread)) in (0_i32..).zip(&bars) {
        let y = TOP + row * ROW;
        let colour = if name.starts_with("saola") { OURS } else { OTHERS };
        let bar = Rectangle::new([(at(least), y), (at(spread.median), y + 20)], colour.filled());
        let whisker = PathElement::new(
            vec![(at(spread.least), y + 10), (at(spread.greatest), y + 10)],
            TEXT.stroke_width(2),
        );
        let label =
            EmptyElement::at((16, y + 3)) + Text::new((*name).to_owned(), (0, 0), font(15, &TEXT));
        let value = Text::new(
            format!("{:.2}", spread.median),
            (at(spread.greatest) + 8, y + 3),
            font(15, &TEXT),
        );
        area.draw(&bar).map_err(|error| bad(&error))?;
        area.draw(&whisker).map_err(|error| bad(&error))?;
        area.draw(&Circle::new((at(spread.median), y + 10), 2, BLACK.filled()))
            .map_err(|error| bad(&error))?;
        area.draw(&label).map_err(|error| bad(&error))?;
        area.draw(&value).map_err(|error| bad(&error))?;
    }
    area.present().map_err(|error| bad(&error))
}
