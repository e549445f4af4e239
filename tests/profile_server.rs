//! A profile server of the test's own: takes what the push client of Pyroscope sends, or refuses it, or says nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;
use prost::Message as _;
use pyroscope::encode::r#gen::google::Profile;
use pyroscope::encode::r#gen::push::PushRequest;

use crate::certificates::Authority;
use crate::posts::{self, Reply};
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
        Self::start_with(Mode::Take, Some(authority))
    }

    fn start_with(mode: Mode, authority: Option<&Authority>) -> Self {
        let pushes = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&pushes);
        let url = posts::listen(authority, move |post| match mode {
            Mode::Take => {
                taken.lock().unwrap().push(push(post.head, &post.body));
                Reply::status("200 OK")
            }
            Mode::Refuse => Reply::status("400 Bad Request"),
            Mode::Hang => Reply::Silence,
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
