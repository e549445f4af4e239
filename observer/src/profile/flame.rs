//! A window as collapsed stacks, one a line, and as an SVG flame graph of them.

use std::collections::BTreeMap;
use std::io;

use inferno::flamegraph::{self, Options};

use super::pprof::OTHER;
use super::symbols::Symbols;
use super::window::Window;

/// `outermost;…;innermost WEIGHT`, sorted: what flame graph tools read. Weights are samples.
pub(crate) fn collapsed(window: &Window, symbols: &mut Symbols) -> String {
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    for (key, weight) in window.stacks() {
        let mut names = vec![format!("worker {}", key.worker)];
        for (depth, counter) in key.frames.iter().enumerate().rev() {
            let frames = symbols.frames(*counter, depth == 0);
            names.extend(frames.iter().rev().map(|frame| shown(&frame.function)));
        }
        if key.frames.is_empty() {
            names.push(OTHER.to_owned());
        }
        *stacks.entry(names.join(";")).or_default() += weight;
    }
    let mut text = String::new();
    for (stack, weight) in stacks {
        text.extend([&stack, " ", itoa::Buffer::new().format(weight), "\n"]);
    }
    text
}

/// A name for a box: without the types that a generic function was made for, which would fill the picture, and without
/// the signs that separate stacks.
fn shown(function: &str) -> String {
    let mut name = String::new();
    let (mut depth, mut before) = (0_usize, ' ');
    for character in function.chars() {
        // `<Type as Trait>::method` begins a name; `method<Type>` is what is shortened.
        let is_generic =
            character == '<' && !name.is_empty() && !name.ends_with([' ', '(', '&', ',']);
        match character {
            '<' if depth > 0 || is_generic => {
                name.push_str(if depth == 0 { "<…>" } else { "" });
                depth += 1;
            }
            // The arrow of a function type closes nothing.
            '>' if depth > 0 && before != '-' => depth -= 1,
            _ if depth > 0 => {}
            ';' | '\n' => name.push(':'),
            other => name.push(other),
        }
        before = character;
    }
    name
}

/// A flame graph that can be searched and zoomed in a browser; an empty profile is an empty picture that says so.
///
/// # Errors
///
/// What the renderer said.
pub(crate) fn svg(window: &Window, symbols: &mut Symbols, title: &str) -> io::Result<Vec<u8>> {
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    "samples".clone_into(&mut options.count_name);
    options.deterministic = true;
    // Where no script runs, as in a page that shows the picture, nothing measures the letters, and labels would run over
    // their boxes.
    options.font_width = WIDTH_OF_LETTERS;
    let mut stacks = collapsed(window, symbols);
    if stacks.is_empty() {
        // The renderer calls an empty input an error; a profile of an idle server is none.
        stacks.push_str("no samples: nothing used the CPU 1\n");
    }
    let mut picture = Vec::new();
    flamegraph::from_lines(&mut options, stacks.lines(), &mut picture).map_err(io::Error::other)?;
    Ok(picture)
}

/// Of their size: those of `DejaVu Sans Mono`, among the wide ones of the fonts that stand for "monospace".
const WIDTH_OF_LETTERS: f64 = 0.61;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_has_the_name_of_a_function_and_not_of_its_types() {
        for (function, name) in [
            ("shop::cart::total", "shop::cart::total"),
            ("poll<alloc::boxed::Box<shop::Cart, Global>>", "poll<…>"),
            ("<shop::Cart as Iterator>::next", "<shop::Cart as Iterator>::next"),
            ("<Vec<u8> as Iterator>::fold<i32>", "<Vec<…> as Iterator>::fold<…>"),
            ("a;b", "a:b"),
            ("call<fn(u8) -> u8>::{closure#0}", "call<…>::{closure#0}"),
        ] {
            assert_eq!(shown(function), name);
        }
    }
}
