//! The rows of `corpus/requests.txt`: raw requests with the answers that the standards ask for.

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    expected: Vec<&'static str>,
    bytes: Vec<u8>,
    body: Option<Vec<u8>>,
}

/// An answer as it was read.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

pub(crate) fn all() -> Vec<Row> {
    let lines = include_str!("corpus/requests.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Row::parse).collect()
}

impl Row {
    fn parse(line: &'static str) -> Self {
        // Only one space on either side of a bar is the table's.
        let mut columns = line.split(" |").map(|text| text.strip_prefix(' ').unwrap_or(text));
        let mut next = || columns.next().unwrap_or_else(|| panic!("a column is missing: {line}"));
        let (name, expected, section, bytes) = (next(), next(), next(), next());
        assert!(section.starts_with("RFC "), "no section: {line}");
        let body = columns.next().map(unescape);
        Self { name, expected: expected.split(' ').collect(), bytes: unescape(bytes), body }
    }

    /// Cut behind every byte.
    pub(crate) fn bytewise(&self) -> Vec<Vec<usize>> {
        vec![(1..self.bytes.len()).collect()]
    }

    /// In two parts, in all ways; of a long row only those near its ends.
    pub(crate) fn splits(&self) -> Vec<Vec<usize>> {
        let length = self.bytes.len();
        let cuts = (1..length).filter(|cut| *cut < 300 || cut + 300 > length);
        cuts.map(|cut| vec![cut]).collect()
    }

    pub(crate) fn parts<'a>(&'a self, cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([self.bytes.len()]);
        starts.zip(ends).map(|(start, end)| &self.bytes[start..end])
    }

    /// Compares what came back with what is right; says what is wrong.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let is_head = self.bytes.starts_with(b"HEAD ");
        let answers = answers(bytes, is_head).map_err(|found| {
            format!("{found}: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)]))
        })?;
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let is_right = match self.expected.as_slice() {
            ["none"] => statuses.is_empty(),
            // A body that breaks off or is malformed: the client is told so or cut off, and the server is not to blame.
            ["bad"] => statuses.is_empty() || matches!(statuses[..], [400..=499]),
            expected => {
                expected.len() == statuses.len()
                    && expected.iter().zip(&statuses).all(|(expected, status)| match *expected {
                        "app" => matches!(status, 200 | 404 | 405),
                        expected => expected == status.to_string(),
                    })
            }
        };
        if !is_right {
            return Err(format!("{statuses:?} instead of {:?}", self.expected));
        }
        match (&self.body, answers.first()) {
            (Some(body), Some(answer)) if !answer.body.ends_with(body) => {
                Err(format!("the body is {:?}", String::from_utf8_lossy(&answer.body)))
            }
            _ => Ok(()),
        }
    }
}

/// Reads all answers of a connection; anything that is none is an error.
fn answers(mut bytes: &[u8], is_head: bool) -> Result<Vec<Answer>, &'static str> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").ok_or("half a head")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        bytes = &bytes[end..];
        let status = head.strip_prefix("http/1.1 ").or(head.strip_prefix("http/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)?.parse().ok()).ok_or("no status line")?;
        if status == 100 {
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = match length {
            Some(length) if !is_head => length.trim().parse().map_err(|_| "a wrong length")?,
            _ => 0,
        };
        let body = bytes.get(..length).ok_or("half a body")?.to_vec();
        bytes = &bytes[length..];
        answers.push(Answer { status, body });
    }
    Ok(answers)
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    loop {
        rest = match rest {
            [] => return bytes,
            [b'\\', b'x', high, low, behind @ ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                behind
            }
            [b'\\', escape, behind @ ..] => {
                bytes.push(match escape {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    other => *other,
                });
                behind
            }
            [b'{', behind @ ..] => {
                let end = behind.iter().position(|byte| *byte == b'}').unwrap();
                let repeated = std::str::from_utf8(&behind[..end]).unwrap();
                let (piece, times) = repeated.rsplit_once('*').unwrap();
                bytes.extend(unescape(piece).repeat(times.parse().unwrap()));
                &behind[end + 1..]
            }
            [byte, behind @ ..] => {
                bytes.push(*byte);
                behind
            }
        };
    }
}
