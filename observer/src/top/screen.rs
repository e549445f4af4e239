//! How the picture stands on a terminal, and what keys change about that.

use std::cmp::Reverse;

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Row as TableRow, Table, TableState};
use saola_observability::closed::SlotState;

use super::picture::{COLUMNS, Picture, RUNNING, Row, Running, time};

/// What the keys have chosen.
#[derive(Default, Debug)]
pub(super) struct Screen {
    sort: Sort,
    /// The row under the cursor.
    cursor: usize,
    /// The slot that is shown alone.
    one: Option<u32>,
    pub(super) is_paused: bool,
    helps: bool,
}

/// The order of the rows; all but the slot begin with the greatest.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
enum Sort {
    #[default]
    Slot,
    Requests,
    P99,
    Cpu,
    Memory,
}

/// Whether to go on.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Then {
    Go,
    Quit,
}

impl Screen {
    /// Does what a key asks for.
    pub(super) fn key(&mut self, key: KeyEvent, picture: &Picture) -> Then {
        if key.kind == KeyEventKind::Release {
            return Then::Go;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Then::Quit,
            KeyCode::Char('q') => return Then::Quit,
            KeyCode::Char('?') => self.helps = !self.helps,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Up => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Down => {
                self.cursor = (self.cursor + 1).min(picture.rows.len().saturating_sub(1));
            }
            KeyCode::Enter if self.one.is_none() => {
                self.one = self.sorted(picture).get(self.cursor).map(|row| row.slot);
            }
            KeyCode::Enter | KeyCode::Esc => (self.one, self.helps) = (None, false),
            _ => {}
        }
        Then::Go
    }

    /// Draws everything.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, picture: &Picture) {
        let area = frame.area();
        if area.width < LEAST.0 || area.height < LEAST.1 {
            let text =
                format!("too small: {}x{}, needs {}x{}", area.width, area.height, LEAST.0, LEAST.1);
            frame.render_widget(Text::from(text), area);
            return;
        }
        let telemetry = picture.telemetry();
        let bottom = if telemetry.is_some() { 2 } else { 1 };
        let [head, body, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Fill(1),
            Constraint::Length(bottom),
        ])
        .areas(area);
        self.draw_head(frame, head, picture);
        match self.one.and_then(|one| picture.rows.iter().find(|row| row.slot == one)) {
            _ if self.helps => frame.render_widget(Text::from(HELP), body),
            Some(row) => draw_one(frame, body, row, picture),
            None => self.draw_all(frame, body, picture),
        }
        let keys = format!(
            "q quit  ↑↓ Enter one worker  s sort: {}  p {}  ? help",
            self.sort.name(),
            if self.is_paused { "go on" } else { "pause" }
        );
        let lines = telemetry.into_iter().map(|text| Line::from(text).yellow());
        let lines = lines.chain([Line::from(keys).dim()]);
        frame.render_widget(lines.collect::<Text<'_>>(), foot);
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
        let [who, how] = picture.head();
        let mut who = Line::from(who).bold();
        if picture.is_degraded {
            who.push_span("  ");
            who.push_span("DEGRADED".bold().red());
        }
        if self.is_paused {
            who.push_span("  ");
            who.push_span("PAUSED".reversed());
        }
        frame.render_widget(Text::from(vec![who, Line::from(how)]), area);
    }

    fn draw_all(&self, frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
        let rows = self.sorted(picture);
        // The head of each table, an empty line, and never less than three requests.
        let most = area.height.saturating_sub(6).max(2);
        let height = u16::try_from(rows.len()).unwrap_or(u16::MAX).min(most) + 1;
        let [workers, _, running] = Layout::vertical([
            Constraint::Length(height),
            Constraint::Length(1),
            Constraint::Fill(1),
        ])
        .areas(area);
        let mut state = TableState::new().with_selected(Some(self.cursor));
        let columns = fitting(area.width);
        let heads = columns.iter().map(|(_, name, width)| right(name, *width));
        let cells = rows.iter().map(|row| worker(row, &columns));
        let table = Table::new(cells, columns.iter().map(|(_, _, width)| *width))
            .header(TableRow::new(heads).style(HEAD))
            .row_highlight_style(Modifier::REVERSED);
        frame.render_stateful_widget(table, workers, &mut state);
        let all: Vec<_> = picture.running.iter().collect();
        draw_running(frame, running, &all);
    }

    fn sorted<'p>(&self, picture: &'p Picture) -> Vec<&'p Row> {
        let mut rows: Vec<_> = picture.rows.iter().collect();
        let greatest = |value: Option<f64>| Reverse(Ordered(value.unwrap_or(-1.0)));
        match self.sort {
            Sort::Slot => {}
            Sort::Requests => {
                rows.sort_by_key(|row| greatest(row.rates.map(|rates| rates.requests)));
            }
            Sort::P99 => rows.sort_by_key(|row| greatest(row.rates.and_then(|rates| rates.p99))),
            Sort::Cpu => rows.sort_by_key(|row| greatest(row.cpu)),
            Sort::Memory => rows.sort_by_key(|row| greatest(row.memory)),
        }
        rows
    }
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Slot => Self::Requests,
            Self::Requests => Self::P99,
            Self::P99 => Self::Cpu,
            Self::Cpu => Self::Memory,
            Self::Memory => Self::Slot,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Requests => "req/s",
            Self::P99 => "p99",
            Self::Cpu => "cpu",
            Self::Memory => "mem",
        }
    }
}

/// A number in its total order.
#[derive(PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// One worker, and what it serves.
fn draw_one(frame: &mut Frame<'_>, area: Rect, row: &Row, picture: &Picture) {
    let [facts, running] =
        Layout::vertical([Constraint::Length(7), Constraint::Fill(1)]).areas(area);
    let cells = row.cells();
    let cell = |column: usize| cells.get(column).map_or("", String::as_str);
    let lines = [
        format!("worker {}  pid {}  {} for {}", row.slot, cell(1), cell(2), time(row.since)),
        format!("generation {}  {} restarts", row.generation, row.restarts),
        format!("{} req/s  p50 {} ms  p99 {} ms", cell(3), cell(4), cell(5)),
        format!("{} running  {} connections, {} ever", cell(6), row.connections, row.accepted),
        format!("loop lag {} ms, busy {:.0} %", cell(7), row.busy * 100.0),
        format!("CPU {} %  memory {}", cell(8), cell(9)),
    ];
    frame.render_widget(Text::from_iter(lines), facts);
    let own: Vec<_> = picture.running.iter().filter(|other| other.worker == row.slot).collect();
    draw_running(frame, running, &own);
}

fn draw_running(frame: &mut Frame<'_>, area: Rect, running: &[&Running]) {
    let trace = if area.width < WIDE { 16 } else { 32 };
    let widths = [
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Fill(1),
        Constraint::Length(6),
        Constraint::Length(trace),
    ];
    let rows = running.iter().map(|running| TableRow::new(running.cells()));
    let table = Table::new(rows, widths).header(TableRow::new(RUNNING).style(HEAD));
    frame.render_widget(table, area);
}

/// The columns for which there is room: number, name and width. What a narrow terminal can do without goes first.
fn fitting(room: u16) -> Vec<(usize, &'static str, u16)> {
    let mut columns: Vec<_> =
        COLUMNS.iter().enumerate().map(|(at, (name, width))| (at, *name, *width)).collect();
    for without in ["LAG ms", "MEM", "P50 ms"] {
        // One between two of them.
        if columns.iter().map(|(_, _, width)| width + 1).sum::<u16>() > room + 1 {
            columns.retain(|(_, name, _)| *name != without);
        }
    }
    columns
}

fn worker(row: &Row, columns: &[(usize, &str, u16)]) -> TableRow<'static> {
    let cells = row.cells();
    let cell = |at: usize| cells.get(at).map_or("", String::as_str);
    let cells: Vec<_> = columns.iter().map(|(at, _, width)| right(cell(*at), *width)).collect();
    let style = match row.state {
        SlotState::Ready => Style::new(),
        SlotState::Free | SlotState::Ended => Style::new().fg(Color::Red),
        SlotState::Starting | SlotState::Draining => Style::new().fg(Color::Yellow),
    };
    TableRow::new(cells).style(style)
}

fn right(text: &str, width: u16) -> String {
    format!("{text:>width$}", width = usize::from(width))
}

const HEAD: Style = Style::new().add_modifier(Modifier::UNDERLINED);
const LEAST: (u16, u16) = (60, 10);
/// From here on there is room for whole trace ids.
const WIDE: u16 = 100;
const HELP: &str = "\
up, down    choose a worker
Enter, Esc  show that worker alone, and all again
s           sort by slot, requests, p99, CPU, memory
p           pause, and go on
q, Ctrl-C   quit

REQ/S, P50 and P99 are of the last interval; the other numbers are of now.
RUN: requests being served. LAG: how late the event loop was last.
MEM: resident memory. RST: owners that the slot has had before this one.
Durations are known by the buckets of the histogram: below 5 ms they are <5.";

#[cfg(test)]
mod tests;
