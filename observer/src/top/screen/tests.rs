use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::status::Dropped;
use crate::top::picture::Rates;

fn rates(requests: f64, p50: f64, p99: f64) -> Rates {
    Rates { requests, errors: 0.0, p50: Some(p50), p99: Some(p99) }
}

fn row(slot: u32) -> Row {
    let number = f64::from(slot);
    Row {
        slot,
        pid: Some(4711 + slot),
        state: SlotState::Ready,
        generation: 3,
        since: Duration::from_mins(125),
        rates: Some(rates(1_200.0 - number, 0.002, 0.0124)),
        in_flight: 3,
        lag: Duration::from_micros(200 + u64::from(slot)),
        busy: 0.5,
        cpu: Some(0.5 + number / 10.0),
        memory: Some(12_900_000.0),
        restarts: u64::from(slot),
        connections: 17,
        accepted: 4_000,
    }
}

fn picture() -> Picture {
    let mut rows: Vec<_> = (0..4).map(row).collect();
    rows[2].state = SlotState::Starting;
    rows[3] =
        Row { pid: None, state: SlotState::Free, rates: None, cpu: None, memory: None, ..row(3) };
    let running = |ms, worker| Running {
        age: Duration::from_millis(ms),
        method: "GET",
        route: "/articles/{slug}/comments".into(),
        worker,
        trace: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
    };
    Picture {
        service: "shop".into(),
        version: "1.2.3".into(),
        generation: 3,
        uptime: Duration::from_mins(125),
        up: 3,
        configured: 4,
        is_degraded: true,
        rates: Some(Rates { requests: 12_345.0, errors: 0.25, p50: Some(0.002), p99: Some(0.25) }),
        rows,
        running: vec![running(12_340, 1), running(850, 0)],
        dropped: vec![Dropped { what: "lines", why: "blocked".into(), count: 120 }],
        spans_exported: 42,
    }
}

/// What stands on a screen of that size, without the spaces at the ends of lines.
fn shown(screen: &mut Screen, picture: &Picture, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame, picture)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content.chunks(usize::from(width)).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn press(screen: &mut Screen, code: KeyCode) -> Then {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE), &picture())
}

#[test]
fn everything_fits_on_80_by_24() {
    let text = shown(&mut Screen::default(), &picture(), 80, 24);
    assert_eq!(text.clone() + "\n", GOLDEN_80, "\n{text}");
}

#[test]
fn a_wider_terminal_shows_whole_trace_ids() {
    let text = shown(&mut Screen::default(), &picture(), 120, 40);
    assert_eq!(text.lines().count(), 40);
    assert!(text.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "\n{text}");
    assert_eq!(text.clone() + "\n", GOLDEN_120, "\n{text}");
}

#[test]
fn degraded_is_red() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| Screen::default().draw(frame, &picture())).unwrap();
    let buffer = terminal.backend().buffer();
    let red = buffer.content.iter().take(80).filter(|cell| cell.fg == Color::Red);
    let red: String = red.map(ratatui::buffer::Cell::symbol).collect();
    assert_eq!(red, "DEGRADED");
}

#[test]
fn a_terminal_that_is_too_small_is_told_so() {
    for (width, height) in [(59, 24), (80, 9), (1, 1)] {
        let text = shown(&mut Screen::default(), &picture(), width, height);
        assert!("too small: ".starts_with(text.split(':').next().unwrap()), "{text}");
    }
    let least = shown(&mut Screen::default(), &picture(), 60, 10);
    assert!(least.contains("SLOT     PID    STATE   REQ/S P99 ms   RUN   CPU%  RST"), "\n{least}");
    assert!(least.contains("4711") && least.contains("DEGRADED"), "\n{least}");
}

#[test]
fn more_workers_than_lines_scroll_with_the_cursor() {
    let mut picture = picture();
    picture.rows = (0..64).map(row).collect();
    let mut screen = Screen::default();
    assert!(!shown(&mut screen, &picture, 80, 24).contains("4774"));
    for _ in 0..63 {
        screen.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE), &picture);
    }
    let text = shown(&mut screen, &picture, 80, 24);
    assert!(text.contains("4774") && text.contains("/articles/{slug}/comments"), "\n{text}");
}

#[test]
fn keys_sort_choose_pause_help_and_quit() {
    let mut screen = Screen::default();
    let slots = |screen: &Screen| -> Vec<u32> {
        screen.sorted(&picture()).iter().map(|row| row.slot).collect()
    };
    assert_eq!(slots(&screen), [0, 1, 2, 3]);
    press(&mut screen, KeyCode::Char('s'));
    press(&mut screen, KeyCode::Char('s'));
    press(&mut screen, KeyCode::Char('s'));
    assert_eq!((screen.sort, slots(&screen)), (Sort::Cpu, vec![2, 1, 0, 3]));
    press(&mut screen, KeyCode::Enter);
    assert_eq!(screen.one, Some(2));
    assert!(
        shown(&mut screen, &picture(), 80, 24).contains("worker 2  pid 4713  starting for 2h05m")
    );
    press(&mut screen, KeyCode::Esc);
    assert_eq!(screen.one, None);
    for _ in 0..9 {
        press(&mut screen, KeyCode::Down);
    }
    assert_eq!(screen.cursor, 3);
    press(&mut screen, KeyCode::Char('p'));
    assert!(shown(&mut screen, &picture(), 80, 24).contains("PAUSED"));
    press(&mut screen, KeyCode::Char('?'));
    assert!(shown(&mut screen, &picture(), 80, 24).contains("Enter, Esc"));
    assert_eq!(press(&mut screen, KeyCode::Char('x')), Then::Go);
    assert_eq!(press(&mut screen, KeyCode::Char('q')), Then::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.key(control_c, &picture()), Then::Quit);
}

/// The screen as it is to be, one file each.
const GOLDEN_80: &str = include_str!("golden/80x24.txt");
const GOLDEN_120: &str = include_str!("golden/120x40.txt");
