//! The source of the application: statements are constant, and drivers have one place.

use std::path::Path;

fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

#[test]
fn no_statement_is_put_together_at_run_time() {
    let source = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(source.len() > 30, "it looks in the right place");
    for (path, text) in source {
        let mut rest = text.as_str();
        while let Some((_, after)) = rest.split_once("format!(") {
            let literal = after.split(')').next().unwrap_or_default();
            for word in ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM", " WHERE "] {
                assert!(!literal.contains(word), "{path}: format!({literal}");
            }
            rest = after;
        }
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let statements = text.matches(" Sql::").count();
        let constant = text.matches(": Sql = Sql::").count();
        let is_layer = path.contains("/src/db");
        assert!(is_layer || statements == constant, "{path}: a statement that is no static");
        for driver in ["rusqlite", "tokio_postgres", "deadpool"] {
            assert!(is_layer || !text.contains(driver), "{path} names {driver}");
        }
    }
}
