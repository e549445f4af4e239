//! Names for the addresses of a hung worker's stack (S37): the observer is a fork of the same program, and unlike the supervisor
//! it has the time to look them up.

use std::path::Path;

use saola_observability::record::{EventRecord, OwnedValue, Record};

use crate::profile::Symbols;

/// Adds the functions to the line of a stack, the innermost first. One of another program keeps its addresses only.
#[inline]
pub(super) fn name(record: &mut Record<'_>, symbols: &mut Symbols) {
    // Almost all are requests.
    if let Record::Event(event) = record {
        name_of_stack(event, symbols);
    }
}

fn name_of_stack(event: &mut EventRecord, symbols: &mut Symbols) {
    if event.target != "saola::supervisor" || event.message != "worker stack" {
        return;
    }
    let Some(addresses) = addresses(event) else { return };
    let frames = addresses.iter().enumerate().flat_map(|(depth, address)| {
        let frames = symbols.frames(*address, depth == 0);
        frames.iter().map(text).collect::<Vec<_>>()
    });
    let named = (0..).zip(frames.take(MOST_FRAMES));
    let named =
        named.map(|(depth, text): (u32, _)| (format!("at_{depth:02}"), OwnedValue::Str(text)));
    event.fields.extend(named);
}

/// What the supervisor has written as places in the program's file, or in a library, as they are in memory.
fn addresses(event: &EventRecord) -> Option<Vec<u64>> {
    let field =
        |name: &str| event.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let (Some(OwnedValue::Str(stack)), None) = (field("stack"), field("image")) else {
        return None;
    };
    let base = base()?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let address = |word: &str| match word.strip_prefix("lib:0x") {
        Some(text) => hex(text),
        None => hex(word.strip_prefix("0x")?)?.checked_add(base),
    };
    Some(stack.split(' ').filter_map(address).collect())
}

/// Where this program begins in memory.
fn base() -> Option<u64> {
    let program = std::fs::read_link("/proc/self/exe").ok()?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let first = maps.lines().find(|line| line.ends_with(&*program.to_string_lossy()))?;
    u64::from_str_radix(first.split('-').next()?, 16).ok()
}

fn text(frame: &crate::profile::Frame) -> String {
    let name: String = frame.function.chars().take(LONGEST_NAME).collect();
    match Path::new(&frame.file).file_name() {
        Some(file) => format!("{name} {}:{}", file.to_string_lossy(), frame.line),
        None => name,
    }
}

const MOST_FRAMES: usize = 24;
const LONGEST_NAME: usize = 100;

#[cfg(test)]
mod tests {
    use saola_observability::closed::Level;
    use saola_observability::ids::{SpanId, TraceId};

    use super::*;

    fn stack(fields: &[(&str, &str)]) -> Record<'static> {
        let fields = fields
            .iter()
            .map(|(key, value)| ((*key).to_owned(), OwnedValue::Str((*value).to_owned())));
        Record::Event(EventRecord {
            wall_ns: 0,
            level: Level::Info,
            target: "saola::supervisor".to_owned(),
            message: "worker stack".to_owned(),
            trace: TraceId::NONE,
            span: SpanId::NONE,
            request_id: String::new(),
            fields: fields.collect(),
        })
    }

    fn fields(record: Record<'_>) -> Vec<(String, OwnedValue)> {
        let Record::Event(event) = record else { panic!("an event stays one") };
        event.fields
    }

    #[test]
    fn an_address_gets_the_name_of_its_function_unless_it_is_another_programs() {
        #[expect(clippy::as_conversions, reason = "the address of a function")]
        let address = u64::try_from(known as fn() as *const () as usize).unwrap();
        let place = format!("0x{:x}", address - base().unwrap());
        let mut named = stack(&[("stack", &place)]);
        name(&mut named, &mut Symbols::default());
        let all = fields(named);
        let (key, OwnedValue::Str(text)) = &all[1] else { panic!("{all:?}") };
        assert_eq!(key, "at_00");
        assert!(text.contains("stacks::tests::known stacks.rs:"), "{text}");
        let mut foreign = stack(&[("stack", &place), ("image", "another")]);
        name(&mut foreign, &mut Symbols::default());
        assert_eq!(fields(foreign).len(), 2);
        let mut nonsense = stack(&[("stack", "no address")]);
        name(&mut nonsense, &mut Symbols::default());
        assert_eq!(fields(nonsense).len(), 1);
    }

    #[inline(never)]
    fn known() {
        std::hint::black_box(2);
    }
}
