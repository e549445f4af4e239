//! A profile server of the test's own: takes what the push client of Pyroscope sends, or refuses it, or says nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;
use prost::Message as _;
use pyroscope::encode::r#gen::google::Profile;
use pyroscope::encode::r#gen::push::PushRequest;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::Authority;
use crate::output::thread;
use crate::wait;

pub(crate) struct ProfileServer {
    url: String,
    pushes: Arc<Mutex<Vec<Push>>>,
}

/// What the server does with a push.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Mode {
    Take,
    Refuse,
    Hang,
}

/// One push: its head, and the profile in it.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub(crate) head: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) profile: Profile,
}

/// A sample in words.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) functions: Vec<String>,
    pub(crate) value: i64,
}

impl ProfileServer {
    pub(crate) fn start(mode: Mode) -> Self {
        Self::start_with(mode, None)
    }

    /// Takes pushes over TLS.
    pub(crate) fn start_secure(authority: &Authority) -> Self {
        Self::start_with(Mode::Take, Some(authority.server()))
    }

    fn start_with(mode: Mode, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = match &tls {
            Some(_) => format!("https://localhost:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        };
        let pushes = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&pushes);
        // It ends with the test process: a connection is all it holds.
        thread(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                if mode == Mode::Hang {
                    held.push(stream);
                    continue;
                }
                let taken = Arc::clone(&taken);
                let tls = tls.clone().map(|tls| ServerConnection::new(tls).unwrap());
                thread(move || match tls {
                    Some(tls) => answer_all(StreamOwned::new(tls, stream), mode, &taken),
                    None => answer_all(stream, mode, &taken),
                });
            }
        });
        Self { url, pushes }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn pushes(&self) -> Vec<Push> {
        self.pushes.lock().unwrap().clone()
    }

    /// All samples of all pushes.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.pushes().iter().flat_map(|push| samples(&push.profile)).collect()
    }

    /// Waits until some sample is as wanted.
    pub(crate) fn until_sample(&self, what: &str, is_wanted: impl Fn(&Sample) -> bool) -> Sample {
        wait::until_some(what, || self.samples().into_iter().find(&is_wanted))
    }
}

fn answer_all(stream: impl Read + Write, mode: Mode, taken: &Mutex<Vec<Push>>) {
    let mut reader = BufReader::new(stream);
    while answer(&mut reader, mode, taken).is_some() {}
}

/// Reads one push and answers it; `None` when the client has left.
fn answer(
    reader: &mut BufReader<impl Read + Write>,
    mode: Mode,
    taken: &Mutex<Vec<Push>>,
) -> Option<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.expect("a push has a length")];
    reader.read_exact(&mut body).ok()?;
    let status = if mode == Mode::Take { "200 OK" } else { "400 Bad Request" };
    if mode == Mode::Take {
        taken.lock().unwrap().push(push(head, &body));
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
    reader.get_mut().write_all(answer.as_bytes()).and_then(|()| reader.get_mut().flush()).ok()
}

fn push(head: String, body: &[u8]) -> Push {
    let mut bytes = Vec::new();
    GzDecoder::new(body).read_to_end(&mut bytes).unwrap();
    let request = PushRequest::decode(bytes.as_slice()).unwrap();
    let [series] = request.series.as_slice() else { panic!("one series: {request:?}") };
    let pairs = series.labels.iter().map(|label| (label.name.clone(), label.value.clone()));
    let raw = &series.samples[0].raw_profile;
    Push { head, labels: pairs.collect(), profile: decoded(raw) }
}

/// A profile as bytes, compressed or not; checked as a reader would.
pub(crate) fn decoded(bytes: &[u8]) -> Profile {
    let mut plain = Vec::new();
    if GzDecoder::new(bytes).read_to_end(&mut plain).is_err() {
        plain = bytes.to_vec();
    }
    let profile = Profile::decode(plain.as_slice()).unwrap();
    assert_eq!(profile.string_table[0], "");
    for location in &profile.location {
        assert!(!location.line.is_empty(), "a location without a function");
    }
    profile
}

/// The samples of a profile, with names for numbers.
pub(crate) fn samples(profile: &Profile) -> Vec<Sample> {
    let text = |number: i64| profile.string_table[usize::try_from(number).unwrap()].clone();
    let functions: BTreeMap<_, _> =
        profile.function.iter().map(|function| (function.id, text(function.name))).collect();
    let locations: BTreeMap<_, _> = profile
        .location
        .iter()
        .map(|location| {
            let names = location.line.iter().map(|line| functions[&line.function_id].clone());
            (location.id, names.collect::<Vec<_>>())
        })
        .collect();
    let sample = |sample: &pyroscope::encode::r#gen::google::Sample| Sample {
        labels: sample.label.iter().map(|label| (text(label.key), text(label.str))).collect(),
        functions: sample.location_id.iter().flat_map(|id| locations[id].clone()).collect(),
        value: sample.value[0],
    };
    profile.sample.iter().map(sample).collect()
}
