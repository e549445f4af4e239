//! The text of a database statement without the values in it (O46): they are people's, and a record holds none.

/// Says whether a field holds a statement: by its present name or by its old one (OpenTelemetry, database conventions).
pub(super) fn is_statement(field: &str) -> bool {
    matches!(field, "db.query.text" | "db.statement")
}

/// The statement with `?` for everything in quotes and for each number that is no part of a name or of a placeholder.
/// Comments are left out. Where databases differ in what ends a text, the rest is left out too.
pub(super) fn without_values(statement: &str) -> String {
    let mut out = String::with_capacity(statement.len());
    let mut rest = statement;
    // What stands before; none behind what was left out.
    let mut before = None;
    loop {
        let (plain, from) = rest.split_at(rest.find(may_begin).unwrap_or(rest.len()));
        out.push_str(plain);
        rest = from;
        before = plain.chars().next_back().or(before);
        let Some(first) = rest.chars().next() else { return out };
        let is_in_name = before.is_some_and(is_of_name);
        let (shown, end) = match first {
            // Some databases take what stands in double quotes for a value.
            '\'' | '"' => ("?", Some(quoted(rest, first))),
            '$' if !is_in_name => ("?", dollars(rest)),
            '0'..='9' if !is_in_name => ("?", Some(number(rest))),
            '-' if rest.starts_with("--") => ("", Some(rest.find('\n').unwrap_or(rest.len()))),
            '/' if rest.starts_with("/*") => (" ", Some(comment(rest))),
            // A comment, or an operator.
            '#' => ("?", Some(rest.len())),
            // A name, whatever stands in it.
            '`' => named(rest),
            _ => ("", None),
        };
        if end.is_some() {
            out.push_str(shown);
        } else {
            out.push(first);
        }
        before = end.is_none().then_some(first);
        rest = rest.split_at(end.unwrap_or(first.len_utf8())).1;
    }
}

/// What a value, a comment or a quoted name may begin with: few characters of a statement do.
fn may_begin(character: char) -> bool {
    matches!(character, '\'' | '"' | '$' | '0'..='9' | '-' | '/' | '#' | '`')
}

/// Where a text in quotes ends: two of them are one that belongs to it. A backslash may be another way to write one, or
/// nothing special: then all that follows is taken for the text.
fn quoted(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            break;
        }
        if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// Where a comment ends. In some databases it may hold another: then all that follows is taken for it.
fn comment(text: &str) -> usize {
    let body = text.split_at(2).1;
    let end = body.find("*/").filter(|end| !body.split_at(*end).0.contains("/*"));
    end.map_or(text.len(), |end| end + 4)
}

/// A name between backticks, and where it ends.
fn named(text: &str) -> (&str, Option<usize>) {
    let end = text.split_at(1).1.find('`').map_or(text.len(), |end| end + 2);
    (text.split_at(end).0, Some(end))
}

/// Where a text between `$$`s or `$tag$`s ends (PostgreSQL); `None` for `$1`, which is a placeholder.
fn dollars(text: &str) -> Option<usize> {
    let tag = text.split_at(1).1.find('$')? + 2;
    let (tag, body) = text.split_at(tag);
    let name = tag.trim_matches('$');
    if name.starts_with(|first: char| first.is_ascii_digit()) || !name.chars().all(is_of_name) {
        return None;
    }
    Some(body.find(tag).map_or(text.len(), |end| end + 2 * tag.len()))
}

/// Where a number ends: `12`, `1.5e-3`, `0xff`.
fn number(text: &str) -> usize {
    let mut before = ' ';
    let mut is_of_number = |character: char| {
        let is_sign = matches!(character, '+' | '-') && matches!(before, 'e' | 'E');
        before = character;
        is_sign || character == '.' || character.is_ascii_alphanumeric()
    };
    text.chars().take_while(|character| is_of_number(*character)).count()
}

/// What a digit may follow in a name, or in a placeholder such as `$1`, `?2` or `:3`.
fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '?' | ':' | '@')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_left_out_and_names_and_placeholders_are_not() {
        for (given, shown) in [
            (
                "SELECT a1, t2.b FROM t2 WHERE id = $1 LIMIT ?2",
                "SELECT a1, t2.b FROM t2 WHERE id = $1 LIMIT ?2",
            ),
            (
                "SELECT 1 FROM t WHERE a=-12.5e-3 AND b IN (0xff,2)",
                "SELECT ? FROM t WHERE a=-? AND b IN (?,?)",
            ),
            ("WHERE name = 'O''Hara' AND x = ''", "WHERE name = ? AND x = ?"),
            (
                "WHERE name = \"Ann\" OR $$it's$$ OR $q$a$$b$q$ OR $2",
                "WHERE name = ? OR ? OR ? OR $2",
            ),
            ("SELECT a -- it's\nFROM t/* user='x' */WHERE b=$1", "SELECT a \nFROM t WHERE b=$1"),
            ("WHERE a = E'it\\'s' AND b = 'secret'", "WHERE a = E?"),
            ("WHERE a = 'never ended", "WHERE a = ?"),
            ("/*/ it's */ 'b' /* /* */ ' */ 'secret'", "  ?  "),
            ("`it's` = 'b' # it's\n'secret'", "`it's` = ? ?"),
            ("SELECT/**/1, a$b$1 FROM t", "SELECT ?, a$b$1 FROM t"),
            ("SELECT $1::int4, :name, @p1", "SELECT $1::int4, :name, @p1"),
        ] {
            assert_eq!(without_values(given), shown);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn a_value_is_never_shown_and_no_text_panics(value in "[a-z' ]{0,20}zebra[a-z' ]{0,20}", number in 10_000_u32.., any: String) {
            let quoted = value.replace('\'', "''");
            let shown = without_values(&format!("SELECT a FROM t WHERE b = '{quoted}' AND c = {number} -- {any}"));
            prop_assert!(shown.starts_with("SELECT a FROM t WHERE b = ? AND c = ? "), "{shown}");
            prop_assert!(without_values(&any).len() <= any.len());
        }
    }
}
