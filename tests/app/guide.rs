//! docs/api.md: its examples are run, in their order, and say what it says.

use std::process::Command;

use crate::app::database::each;

/// The blocks between fences, with the word behind their opening.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut parts = text.split("```").skip(1);
    while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
        let (kind, body) = block.split_once('\n').unwrap();
        blocks.push((kind.to_owned(), body.to_owned()));
    }
    blocks
}

/// Whether `text` is `pattern` with something in place of each `…`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut last = "";
    for piece in pieces {
        let Some((_, behind)) = rest.split_once(piece) else { return false };
        (rest, last) = (behind, piece);
    }
    rest.is_empty() || (last.is_empty() && pattern.ends_with('…'))
}

#[test]
fn every_example_says_what_the_guide_says() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let guide = std::fs::read_to_string(format!("{folder}/docs/api.md")).unwrap();
    let blocks = blocks(&guide);
    assert!(blocks.len() > 20 && blocks.len().is_multiple_of(2), "{} blocks", blocks.len());
    each(|database| {
        let server = database.setup().start();
        let address = format!("http://{}", server.address());
        // One shell, so that what one example sets the next one has.
        let mut script = "set -euo pipefail\n".to_owned();
        for pair in blocks.chunks(2) {
            assert_eq!(pair[0].0, "sh");
            for command in pair[0].1.replace("http://localhost:8000", &address).lines() {
                script.push_str(command);
                // Answers end without a line's end.
                let is_whole = !command.trim_end().ends_with('|') && command.contains("curl");
                script.push_str(if is_whole { "; echo\n" } else { "\n" });
            }
            script.push_str("echo; echo =====\n");
        }
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).current_dir(folder);
        let output = shell.env("SAOLA_BIN", env!("CARGO_BIN_EXE_saola")).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{errors}");
        for (pair, said) in blocks.chunks(2).zip(said.split("=====\n")) {
            let lines = |text: &str| -> Vec<String> {
                text.lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty())
                    .map(str::to_owned)
                    .collect()
            };
            let (wanted, said) = (lines(&pair[1].1), lines(said));
            assert_eq!(wanted.len(), said.len(), "{}{said:#?}", pair[0].1);
            for (wanted, said) in wanted.iter().zip(&said) {
                assert!(matches(wanted, said), "the guide says\n{wanted}\nbut it was\n{said}");
            }
        }
    });
}
