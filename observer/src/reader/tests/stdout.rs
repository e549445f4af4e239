//! A stdout that takes lines slowly, or not at all.

use nix::unistd::pipe;

use super::*;

#[test]
fn a_stdout_that_nobody_reads_costs_lines_and_never_fills_a_ring() {
    let (read, write) = pipe().unwrap();
    let mut reader = reader(1, 1_000, write);
    for id in 0..20_000 {
        assert!(reader.rings.push(0, record(id, 1_000)), "the ring is full at {id}");
        if id % 100 == 0 {
            reader.pass();
        }
        let slot = &reader.rings.slots[0];
        // Until there is no room for lines; a pass is for a hundred more.
        assert!(
            slot.records.len() - slot.committed[0] <= 975,
            "the cursor is seven eighths behind"
        );
    }
    let slot = &reader.rings.slots[0];
    assert!(slot.records.len() - slot.committed[0] <= 700, "the cursor is half a ring behind");
    assert!(reader.lines.lost() > 0);
    let text = collect(read);
    until(&mut reader, "it goes on by itself", Reader::has_written_all);
    reader.pass();
    let lost = reader.lines.lost();
    let written = reader.lines.written();
    drop(reader);
    let text = text.join().unwrap();
    let found = ids(&text);
    assert!(found.is_sorted(), "in order");
    assert_eq!(u64::try_from(found.len()).unwrap() + lost, 20_000);
    // One, or two where the writer's thread got its first turn late and room came and went.
    let told: Vec<_> = text.lines().filter(|line| line.contains("log lines dropped")).collect();
    assert!(told.iter().all(|line| line.ends_with(" reason=blocked")), "{told:?}");
    let count = |line: &&str| -> u64 {
        let (_, count) = line.split_once(" count=").unwrap();
        count.split_once(" since=").unwrap().0.parse().unwrap()
    };
    assert_eq!(told.iter().map(count).sum::<u64>(), lost, "{told:?}");
    // These lines are counted like any other.
    assert_eq!(written + lost, 20_000 + u64::try_from(told.len()).unwrap());
}

#[test]
fn no_cursor_goes_ahead_of_lines_that_have_room() {
    let (read, write) = pipe().unwrap();
    let mut reader = reader(1, 1_000, write);
    // More than half a ring, as after a death of the observer, and more than the pipe takes.
    for id in 0..800 {
        assert!(reader.rings.push(0, record(id, 1_000)));
    }
    for _ in 0..100 {
        reader.pass();
        let committed = u64::try_from(reader.rings.slots[0].committed[number(Stage::Log)]).unwrap();
        assert!(committed <= reader.lines.written(), "a death would take lines");
        std::thread::yield_now();
    }
    assert!(reader.lines.written() < 800, "the pipe is full");
    let text = collect(read);
    until(&mut reader, "all are written", Reader::has_written_all);
    drop(reader);
    assert_eq!(ids(&text.join().unwrap()), (0..800).collect::<Vec<_>>());
}

#[test]
fn a_closed_stdout_is_counted_and_the_cursor_goes_on() {
    let (read, write) = pipe().unwrap();
    drop(read);
    let mut reader = reader(1, 1_000, write);
    for id in 0..300 {
        reader.rings.push(0, record(id, 1));
    }
    until(&mut reader, "all are counted", |reader| reader.lines.lost() == 300);
    until(&mut reader, "the cursor went on", |reader| {
        reader.rings.slots[0].committed == [300, 300]
    });
}

#[test]
fn neither_stdout_nor_a_collector_waits_for_the_other() {
    let (read, write) = pipe().unwrap();
    let lookup = |name: &str| (name == "OTEL_TRACES_EXPORTER").then(|| "otlp".to_owned());
    // Nobody exports, and nobody reads stdout.
    let traces = Traces::new(crate::OtlpSettings::from_env(&lookup).unwrap().unwrap());
    let mut reader = with_traces(1, 1_000, write, Some(traces.clone()));
    for id in 0..20_000 {
        assert!(reader.rings.push(0, record(id, 1_000)), "the ring is full at {id}");
        if id % 100 == 0 {
            reader.pass();
        }
    }
    until(&mut reader, "all spans are queued or counted", Reader::has_queued_all);
    let spans = || u64::try_from(traces.queued()).unwrap() + traces.tally().dropped_in_all();
    assert_eq!(spans(), 20_000);
    assert!(traces.queued() <= 16_384);
    let text = collect(read);
    until(&mut reader, "lines go on while nobody exports", Reader::has_written_all);
    // The lines have come after the spans; from here on one reading serves both.
    for id in 20_000..20_050 {
        reader.rings.push(0, record(id, 1_000));
    }
    until(&mut reader, "the last lines are written", Reader::has_written_all);
    assert!(reader.has_queued_all());
    assert_eq!(spans(), 20_050, "each once");
    reader.pass();
    let lost = reader.lines.lost();
    drop(reader);
    assert_eq!(u64::try_from(ids(&text.join().unwrap()).len()).unwrap() + lost, 20_050);
}
