//! The query of a request to the admin listener.

/// Its pairs, each key once; what is no pair is nobody's. Which keys mean something is the page's matter:
/// `go tool pprof` and proxies add some of their own.
///
/// # Errors
///
/// What to answer to a key that stands twice.
pub(super) fn pairs(query: &str) -> Result<Vec<(&str, &str)>, &'static str> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if pairs.iter().any(|(other, _)| *other == key) {
            return Err("a key may stand once\n");
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// The number of the slot that is asked for.
///
/// # Errors
///
/// What to answer to one that is no number.
pub(super) fn worker(value: &str) -> Result<u32, &'static str> {
    value.parse().map_err(|_| "worker must be the number of a slot\n")
}
