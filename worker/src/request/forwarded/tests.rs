use proptest::prelude::*;

use super::*;

/// 127.0.0.1 and 10.0.0.0/8 are our own.
fn read_from(
    socket: &str,
    lines: &[(&'static str, &str)],
) -> (Result<Peer, &'static Refusal>, HeaderMap) {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        fields.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let peer = Peer::direct(Some(format!("{socket}:1234").parse().unwrap()), Scheme::HTTP);
    let read = read(&mut fields, peer, &"127.0.0.1,10.0.0.0/8".parse().unwrap());
    (read, fields)
}

fn client(lines: &[(&'static str, &str)]) -> String {
    read_from("127.0.0.1", lines).0.map_or_else(
        |refusal| refusal.status.as_u16().to_string(),
        |peer| peer.client.unwrap().to_string(),
    )
}

#[test]
fn what_strangers_say_is_taken_away() {
    let lines = [
        ("forwarded", "for=1.1.1.1"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-user", "root"),
        ("x-real-ip", "1.1.1.1"),
        ("x-forward", "stays"),
    ];
    let (peer, fields) = read_from("8.8.8.8", &lines);
    let peer = peer.unwrap();
    assert_eq!((peer.client.unwrap().to_string().as_str(), peer.scheme), ("8.8.8.8", Scheme::HTTP));
    assert_eq!(fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-forward"]);
    assert_eq!(read_from("127.0.0.1", &lines).1.len(), lines.len(), "a proxy's word is passed on");
}

#[test]
fn the_first_address_that_is_none_of_ours_is_the_client() {
    let older = |value| client(&[("x-forwarded-for", value)]);
    assert_eq!(older("6.6.6.6, 1.1.1.1"), "1.1.1.1", "what stands left may be forged");
    assert_eq!(older("6.6.6.6, 1.1.1.1, 10.1.1.1"), "1.1.1.1");
    assert_eq!(older("10.2.2.2, 10.1.1.1"), "10.2.2.2", "all are ours: the leftmost");
    assert_eq!(older("1.1.1.1, unknown, 10.1.1.1"), "10.1.1.1");
    assert_eq!(older("1.1.1.1, _hidden"), "127.0.0.1");
    assert_eq!(older("[2001:db8::1]:443"), "2001:db8::1");
    assert_eq!(older("2001:db8::1"), "2001:db8::1");
    assert_eq!(older("1.1.1.1:8080"), "1.1.1.1");
    assert_eq!(older("::ffff:1.1.1.1"), "1.1.1.1");
    assert_eq!(older(""), "127.0.0.1");
    assert_eq!(
        client(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "10.1.1.1")]),
        "1.1.1.1"
    );
}

#[test]
fn the_standards_field_is_read_with_its_quotes() {
    let standard = |value| client(&[("forwarded", value)]);
    assert_eq!(standard("For=\"[2001:db8::1]:4711\";proto=https, for=10.1.1.1"), "2001:db8::1");
    assert_eq!(standard("for=1.1.1.1;host=\"a,b;for=6.6.6.6\""), "1.1.1.1");
    assert_eq!(standard("for=\"1.1.1\\.1\""), "1.1.1.1");
    assert_eq!(standard("for=unknown"), "127.0.0.1");
    assert_eq!(standard("for=\"1.1.1.1"), "400", "a quote without an end");
    assert_eq!(client(&[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "1.1.1.1")]), "1.1.1.1");
    assert_eq!(client(&[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]), "400");
}

#[test]
fn no_more_than_32_entries_and_four_kilobytes_are_read() {
    let ours = |count| "10.1.1.1, ".repeat(count);
    assert_eq!(
        client(&[("x-forwarded-for", &format!("1.1.1.1, {}10.2.2.2", ours(31)))]),
        "10.1.1.1"
    );
    assert_eq!(
        client(&[("x-forwarded-for", &format!("1.1.1.1, {}10.2.2.2", ours(30)))]),
        "1.1.1.1"
    );
    let long = format!("1.1.1.1{}", " ".repeat(4096));
    assert_eq!(client(&[("x-forwarded-for", &long), ("x-forwarded-for", "10.1.1.1")]), "10.1.1.1");
}

#[test]
fn schemes_and_hosts() {
    let peer = |lines: &[_]| read_from("127.0.0.1", lines).0;
    let scheme = |lines: &[_]| peer(lines).map_or("400".into(), |peer| peer.scheme.to_string());
    assert_eq!(scheme(&[("x-forwarded-proto", "HTTPS")]), "https");
    assert_eq!(scheme(&[("x-forwarded-proto", "https, https")]), "https");
    assert_eq!(scheme(&[("x-forwarded-proto", "wss")]), "http");
    assert_eq!(scheme(&[("x-forwarded-proto", "https,http")]), "400");
    assert_eq!(scheme(&[("forwarded", "proto=http"), ("x-forwarded-proto", "https")]), "400");
    assert_eq!(
        scheme(&[("forwarded", "for=1.1.1.1;proto=https, for=10.1.1.1;proto=http")]),
        "https"
    );
    let host =
        |lines: &[_]| peer(lines).unwrap().host.map(|host| host.to_str().unwrap().to_owned());
    assert_eq!(host(&[("forwarded", "for=1.1.1.1;host=\"shop:81\"")]).as_deref(), Some("shop:81"));
    assert_eq!(host(&[("x-forwarded-host", "evil, shop")]).as_deref(), Some("shop"));
    assert_eq!(host(&[("x-forwarded-host", "a b")]), None);
}

proptest! {
    #[test]
    fn no_text_fails_and_a_forged_start_changes_nothing(forged in "[ -~]{0,80}") {
        let honest = client(&[("x-forwarded-for", "1.1.1.1, 10.1.1.1")]);
        prop_assert_eq!(&client(&[("x-forwarded-for", &format!("{forged}, 1.1.1.1, 10.1.1.1"))]), &honest);
        let honest = "for=1.1.1.1, for=10.1.1.1";
        let found = client(&[("forwarded", &format!("{forged}, {honest}"))]);
        prop_assert!(matches!(found.as_str(), "1.1.1.1" | "400"), "{}", found);
    }
}
