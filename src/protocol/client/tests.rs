use proptest::prelude::*;

use super::*;

/// What was understood, on a line; what was not, as `code message`, each after its `ref`.
fn told(text: &str) -> String {
    match parse(text) {
        Ok(request) => format!("{}{}", said(request.reference), shown(&request.message)),
        Err(bad) => format!("{}{} {}", said(bad.reference), bad.code.as_str(), bad.message),
    }
}

fn said(reference: Option<Ref<'_>>) -> String {
    reference.map_or(String::new(), |reference| format!("{} ", reference.as_json()))
}

fn shown(message: &ClientMessage<'_>) -> String {
    let kind = message.kind();
    match message {
        ClientMessage::Auth { token } => format!("{kind} {token}"),
        ClientMessage::Join { room, since: None } => format!("{kind} {room}"),
        ClientMessage::Join {
            room,
            since: Some(since),
        } => format!("{kind} {room} {}/{}", since.epoch, since.seq),
        ClientMessage::Leave { room } | ClientMessage::List { room } => format!("{kind} {room}"),
        ClientMessage::Chat {
            room,
            content,
            key: None,
        } => format!("{kind} {room} {content}"),
        ClientMessage::Chat {
            room,
            content,
            key: Some(key),
        } => format!("{kind} {room} {content} {key}"),
        ClientMessage::History { room, page, limit } => format!("{kind} {room} {page:?} {limit}"),
        ClientMessage::Call { name, data } => format!("{kind} {name} {data}"),
        ClientMessage::Ping => kind.into(),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(told(text), *expected, "{text}");
    }
}

/// A message with `levels` levels in all, itself counted.
fn nested(levels: usize) -> String {
    let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
    format!(r#"{{"type":"chat","room":"r","content":{open}{close},"ref":7}}"#)
}

#[test]
fn every_type_is_understood() {
    check(&[
        (r#"{"type":"auth","token":"a.b.c"}"#, "auth a.b.c"),
        (r#"{"type":"join","room":"lobby"}"#, "join lobby"),
        (r#"{"type":"join","room":"lobby","since":null}"#, "join lobby"),
        (
            r#"{"type":"join","room":"lobby","since":{"epoch":"e1","seq":41}}"#,
            "join lobby e1/41",
        ),
        (
            r#"{"type":"join","room":"lobby","since": { "seq" : 0, "epoch" : "" , "x":[1] } }"#,
            "join lobby /0",
        ),
        (r#"{"type":"leave","room":"lobby"}"#, "leave lobby"),
        (r#"{"type":"chat","room":"lobby","content":"hi"}"#, r#"chat lobby "hi""#),
        (r#"{"type":"chat","room":"lobby","content":null}"#, "chat lobby null"),
        (
            r#"{"type":"chat","room":"lobby","content": {"a": [1, 2]} ,"key":"k1"}"#,
            r#"chat lobby {"a": [1, 2]} k1"#,
        ),
        (r#"{"type":"list","room":"lobby"}"#, "list lobby"),
        (r#"{"type":"history","room":"lobby"}"#, "history lobby Latest 100"),
        (
            r#"{"type":"history","room":"lobby","before":7,"limit":1}"#,
            "history lobby Before(7) 1",
        ),
        (
            r#"{"type":"history","room":"lobby","after":0,"limit":1000}"#,
            "history lobby After(0) 1000",
        ),
        (r#"{"type":"ping"}"#, "ping"),
        (" \t\r\n{ \"type\" : \"ping\" } \n", "ping"),
    ]);
}

#[test]
fn a_call_has_a_name_and_any_data() {
    let long = format!(r#"{{"type":"call","name":"{}"}}"#, "n".repeat(129));
    let bad_name = "bad_message `name` must be a string of 1 to 128 bytes without control characters";
    check(&[
        (
            r#"{"type":"call","name":"orders.create","data":{"id":[7]},"ref":1}"#,
            r#"1 call orders.create {"id":[7]}"#,
        ),
        (r#"{"type":"call","name":"now"}"#, "call now null"),
        (r#"{"type":"call"}"#, "bad_message `name` is missing"),
        (r#"{"type":"call","name":7}"#, "bad_message `name` must be a string"),
        (r#"{"type":"call","name":""}"#, bad_name),
        (r#"{"type":"call","name":"a\nb"}"#, bad_name),
        (long.as_str(), bad_name),
        (
            r#"{"type":"call","name":"x","data":"\ud800"}"#,
            "bad_message `data` has half of a surrogate pair, which is no Unicode text",
        ),
        (
            r#"{"type":"call","name":"x","name":"y"}"#,
            "bad_message `name` comes more than once",
        ),
    ]);
}

#[test]
fn every_type_of_ours_is_known_and_no_other() {
    for kind in TYPES {
        assert!(
            !told(&format!(r#"{{"type":"{kind}"}}"#)).contains("unknown_type"),
            "{kind}"
        );
    }
}

#[test]
fn a_foreign_message_is_taken_apart() {
    let read = |text| match foreign(text) {
        Ok(message) => format!("{} {}", message.kind, message.data),
        Err(bad) => format!("{} {}", bad.code.as_str(), bad.message),
    };
    for (text, expected) in [
        (r#"{"type":"app.like"}"#, "app.like {}"),
        (
            r#"{ "id" : 7, "type":"app.like", "ref":1, "room": "lobby", "traceparent":"00-1", "to":["a", 1.50] }"#,
            r#"app.like {"id":7,"room":"lobby","to":["a", 1.50]}"#,
        ),
        (
            r#"{"type":"app.like","x":1,"\u0078":2}"#,
            "bad_message a field comes more than once",
        ),
        (r#"{"type":""}"#, "bad_message `type` must be a name of 1 to 128 bytes"),
        (
            r#"{"type":"app.like","x":"\udc00"}"#,
            "bad_message the message has half of a surrogate pair, which is no Unicode text",
        ),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn unknown_fields_are_ignored_whatever_they_hold() {
    check(&[
        (r#"{"x":1,"type":"ping","y":{"type":"join","ref":[]},"":null}"#, "ping"),
        (r#"{"x":1,"x":2,"type":"ping"}"#, "ping"),
        (r#"{"x":"\ud800","\udc00":1e999999,"type":"ping","ref":1}"#, "1 ping"),
        (r#"{"$serde_json::private::RawValue":"{}","type":"ping"}"#, "ping"),
        (
            r#"{"type":"chat","room":"r","content":{"$serde_json::private::RawValue":"{"}}"#,
            r#"chat r {"$serde_json::private::RawValue":"{"}"#,
        ),
        (r#"{"type":"ping","epoch":1,"seq":"x"}"#, "ping"),
    ]);
}

#[test]
fn escapes_are_text_like_any_other() {
    check(&[
        (
            r#"{"type":"\u0063hat","room":"\u006cobby","content":"\u0041"}"#,
            r#"chat lobby "\u0041""#,
        ),
        (r#"{"\u0074ype":"ping","\u0072ef":"\u0031"}"#, r#""\u0031" ping"#),
        (r#"{"type":"join","room":"a\"b\\c\/d"}"#, r#"join a"b\c/d"#),
        (r#"{"type":"join","room":"\ud83d\ude80"}"#, "join 🚀"),
        (r#"{"type":"join","room":""}"#, "join "),
        (r#"{"type":"join","room":"\u0000"}"#, "join \0"),
    ]);
}

#[test]
fn a_good_ref_comes_back_as_it_was_written() {
    let long = format!(r#""{}""#, "x".repeat(64));
    let escaped = format!(r#""{}""#, r"\u0078".repeat(64));
    let digits = "9".repeat(64);
    for json in [
        "0",
        "-0",
        "1",
        "-12",
        "9007199254740993",
        r#""""#,
        r#""a b""#,
        r#""é\n""#,
        &long,
        &escaped,
        &digits,
    ] {
        assert_eq!(
            told(&format!(r#"{{"ref": {json} ,"type":"ping"}}"#)),
            format!("{json} ping")
        );
        assert_eq!(Ref::from_json(json).map(|reference| reference.as_json()), Some(json));
    }
}

#[test]
fn a_bad_ref_is_refused_and_not_sent_back() {
    let long = format!(r#""{}""#, "x".repeat(65));
    let wide = format!(r#""{}""#, "é".repeat(33));
    let digits = "9".repeat(65);
    let lone = r#""\ud800""#;
    for json in [
        "1.0", "1e3", "-1E3", "null", "true", "[]", "{}", &long, &wide, &digits, lone,
    ] {
        let expected = "bad_message `ref` must be a string of at most 64 bytes, or an integer";
        assert_eq!(told(&format!(r#"{{"type":"ping","ref":{json}}}"#)), expected, "{json}");
        assert_eq!(Ref::from_json(json), None, "{json}");
    }
    for json in ["", "-", "01", "+1", "a", r#"""#, r#"""""#, "1 2", "\"\n\""] {
        assert_eq!(Ref::from_json(json), None, "{json}");
    }
}

#[test]
fn what_is_not_json_is_bad_json_without_a_ref() {
    let cases = [
        "",
        " ",
        "{",
        "}",
        "nul",
        "hello",
        "'x'",
        "{type:1}",
        "{\"type\":\"ping\"",
        "{\"type\":\"ping\",}",
        "{\"type\":\"ping\"}x",
        "{\"type\":\"ping\"}{}",
        "{\"ref\":1,\"type\":}",
        "[1,2",
        "\u{feff}{\"type\":\"ping\"}",
        "{\"type\":\"ping\",\"ref\":01}",
        "{\"type\":\"ping\",\"ref\":+1}",
        "{\"type\":\"ping\",\"x\":NaN}",
        "{\"type\":\"pi\nng\"}",
        r#"{"type":"\x"}"#,
        r#"{"type":"ping","x":"\u12"}"#,
        "{\"type\":\"ping\"}\0",
        "{1:2}",
        "\u{a0}{}",
        "{\"ref\":1,\"x\":[1}}",
    ];
    for text in cases {
        assert_eq!(told(text), "bad_json not a JSON text", "{text:?}");
    }
    assert_eq!(told(&"[".repeat(100_000)), "bad_json not a JSON text");
    assert_eq!(told(&"{\"a\":".repeat(100_000)), "bad_json not a JSON text");
}

#[test]
fn what_is_json_but_no_object_is_a_bad_message() {
    for text in [
        "null",
        "1",
        "1e999",
        "\"type\"",
        "[]",
        "[{\"type\":\"ping\"}]",
        "true",
        r#""\ud800""#,
    ] {
        assert_eq!(told(text), "bad_message a message is a JSON object", "{text}");
    }
}

#[test]
fn missing_and_mistyped_fields_are_named() {
    check(&[
        (r"{}", "bad_message `type` is missing"),
        (r#"{"ref":1}"#, "1 bad_message `type` is missing"),
        (r#"{"type":null,"ref":1}"#, "1 bad_message `type` must be a string"),
        (r#"{"type":["chat"]}"#, "bad_message `type` must be a string"),
        (r#"{"type":"auth"}"#, "bad_message `token` is missing"),
        (r#"{"type":"auth","token":7}"#, "bad_message `token` must be a string"),
        (r#"{"type":"join","ref":"a"}"#, "\"a\" bad_message `room` is missing"),
        (r#"{"type":"join","room":5}"#, "bad_message `room` must be a string"),
        (
            r#"{"type":"join","room":"\ud800"}"#,
            "bad_message `room` must be a string",
        ),
        (r#"{"type":"leave"}"#, "bad_message `room` is missing"),
        (r#"{"type":"list","room":{}}"#, "bad_message `room` must be a string"),
        (r#"{"type":"history"}"#, "bad_message `room` is missing"),
        (r#"{"type":"chat","content":1}"#, "bad_message `room` is missing"),
        (r#"{"type":"chat","room":"r"}"#, "bad_message `content` is missing"),
        (r#"{"type":"chat","room":"r","content":}"#, "bad_json not a JSON text"),
    ]);
}

#[test]
fn unknown_types_are_answered() {
    let expected = "unknown_type `type` must be auth, join, leave, chat, list, history, call or ping";
    for kind in ["", "Chat", "chat ", "connected", "\\u0000"] {
        assert_eq!(told(&format!(r#"{{"type":"{kind}"}}"#)), expected);
        assert_eq!(
            told(&format!(r#"{{"type":"{kind}","ref":-3}}"#)),
            format!("-3 {expected}")
        );
    }
}

#[test]
fn a_field_twice_is_a_bad_message() {
    check(&[
        (
            r#"{"type":"ping","type":"ping","ref":1}"#,
            "1 bad_message `type` comes more than once",
        ),
        (
            r#"{"type":"ping","\u0074ype":"join","ref":1}"#,
            "1 bad_message `type` comes more than once",
        ),
        (
            r#"{"type":"join","room":"a","room":"a"}"#,
            "bad_message `room` comes more than once",
        ),
        (
            r#"{"type":"chat","room":"a","content":1,"content":2,"ref":5}"#,
            "5 bad_message `content` comes more than once",
        ),
        (
            r#"{"type":"ping","limit":1,"limit":1}"#,
            "bad_message `limit` comes more than once",
        ),
        (
            r#"{"ref":1,"type":"ping","ref":1}"#,
            "bad_message `ref` comes more than once",
        ),
        (
            r#"{"ref":1,"type":"ping","type":"x","ref":2}"#,
            "bad_message `ref` comes more than once",
        ),
    ]);
}

#[test]
fn a_key_has_1_to_64_bytes() {
    let chat = |key: &str| told(&format!(r#"{{"type":"chat","room":"r","content":0,"key":{key}}}"#));
    for key in ["k".into(), "k".repeat(64), "é".repeat(32)] {
        assert_eq!(chat(&format!("\"{key}\"")), format!("chat r 0 {key}"));
    }
    assert_eq!(
        chat(&format!("\"{}\"", r"\u006b".repeat(64))),
        format!("chat r 0 {}", "k".repeat(64))
    );
    let (long, wide) = (format!("\"{}\"", "k".repeat(65)), format!("\"{}\"", "é".repeat(33)));
    for key in ["\"\"", "1", "null", "[]", r#""\udfff""#, &long, &wide] {
        assert_eq!(
            chat(key),
            "bad_message `key` must be a string of 1 to 64 bytes",
            "{key}"
        );
    }
}

#[test]
fn a_position_is_an_epoch_and_a_seq() {
    let join = |since: &str| told(&format!(r#"{{"type":"join","room":"r","since":{since}}}"#));
    assert_eq!(
        join(r#"{"epoch":"\u0065","seq":9007199254740991}"#),
        "join r e/9007199254740991"
    );
    assert_eq!(
        join(r#"{"epoch":"e","seq":18446744073709551615}"#),
        "join r e/18446744073709551615"
    );
    let bad = [
        "{}",
        "[]",
        "7",
        "\"e\"",
        "false",
        r#"{"epoch":"e"}"#,
        r#"{"seq":1}"#,
        r#"{"epoch":1,"seq":1}"#,
        r#"{"epoch":null,"seq":1}"#,
        r#"{"epoch":"e","seq":"1"}"#,
        r#"{"epoch":"e","seq":-1}"#,
        r#"{"epoch":"e","seq":-0}"#,
        r#"{"epoch":"e","seq":1.0}"#,
        r#"{"epoch":"e","seq":1e3}"#,
        r#"{"epoch":"e","seq":18446744073709551616}"#,
        r#"{"epoch":"e","seq":1,"seq":1}"#,
        r#"{"epoch":"e","epoch":"e","seq":1}"#,
        r#"{"epoch":"\ud800","seq":1}"#,
    ];
    for since in bad {
        assert!(
            join(since).starts_with("bad_message `since` must be an object with `epoch`"),
            "{since}"
        );
    }
}

#[test]
fn a_page_is_before_or_after_and_bounded() {
    let history = |rest: &str| told(&format!(r#"{{"type":"history","room":"r",{rest}}}"#));
    assert_eq!(
        history(r#""before":18446744073709551615"#),
        "history r Before(18446744073709551615) 100"
    );
    assert_eq!(
        history(r#""before":1,"after":1"#),
        "bad_message `before` and `after` exclude each other"
    );
    for number in ["-1", "1.5", "1e2", "\"1\"", "null", "18446744073709551616", "[]"] {
        let expected = "must be a non-negative integer";
        assert_eq!(
            history(&format!(r#""before":{number}"#)),
            format!("bad_message `before` {expected}")
        );
        assert_eq!(
            history(&format!(r#""after":{number}"#)),
            format!("bad_message `after` {expected}")
        );
    }
    for limit in [
        "0",
        "1001",
        "-1",
        "1e2",
        "10.0",
        "\"10\"",
        "null",
        "99999999999999999999999",
    ] {
        let expected = "bad_message `limit` must be an integer from 1 to 1000";
        assert_eq!(history(&format!(r#""limit":{limit}"#)), expected, "{limit}");
    }
}

#[test]
fn a_trace_context_that_is_no_string_is_ignored() {
    let context = |text| parse(text).unwrap().traceparent.map(Cow::into_owned);
    assert_eq!(
        context(r#"{"type":"ping","traceparent":"00-ab-cd-01"}"#).as_deref(),
        Some("00-ab-cd-01")
    );
    assert_eq!(context(r#"{"type":"ping","traceparent":7}"#), None);
    assert_eq!(context(r#"{"type":"ping","traceparent":"\ud800"}"#), None);
    assert_eq!(context(r#"{"type":"ping"}"#), None);
}

#[test]
fn nesting_may_be_32_deep_the_message_counted() {
    assert!(told(&nested(32)).starts_with("7 chat r [["));
    for levels in [33, 34, 200, 20_000] {
        assert_eq!(told(&nested(levels)), "7 bad_message nested more than 32 deep");
    }
    let unknown = format!(
        r#"{{"ref":"x","type":"ping","y":{}{}}}"#,
        "{\"a\":".repeat(32),
        "0".to_owned() + &"}".repeat(32)
    );
    assert_eq!(told(&unknown), "\"x\" bad_message nested more than 32 deep");
}

#[test]
fn many_brackets_are_not_deep_ones() {
    for content in [
        format!("[{}1]", "[],".repeat(500)),
        format!(r#""{}""#, "[".repeat(500)),
        format!(r#"["\"{}\\",[]]"#, "{".repeat(99)),
    ] {
        let text = format!(r#"{{"type":"chat","room":"r","content":{content}}}"#);
        assert_eq!(told(&text), format!("chat r {content}"));
    }
}

#[test]
fn content_is_passed_on_as_it_was_written() {
    for content in [
        "1e999999",
        "-0.0",
        "123456789012345678901234567890",
        r#""\u0000\/""#,
        "[ 1 ,\n2 ]",
        r#"{"a":1,"a":2}"#,
    ] {
        let text = format!(r#"{{"type":"chat","room":"r","content":{content}}}"#);
        assert_eq!(told(&text), format!("chat r {content}"));
    }
}

#[test]
fn content_with_half_a_surrogate_pair_is_refused() {
    let chat = |content: &str| told(&format!(r#"{{"type":"chat","room":"r","ref":1,"content":{content}}}"#));
    for content in [
        r#""\ud83d\ude80""#,
        r#""\\ud800""#,
        r#""\\\\udc00""#,
        r#"["\uD83D\uDE80\n"]"#,
        r#""\ud7ff\ue000""#,
    ] {
        assert_eq!(chat(content), format!("1 chat r {content}"));
    }
    let bad = [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ude80\ud83d""#,
        r#""\ud800\ud800\udc00""#,
        r#""\ud800x\udc00""#,
        r#""\\\ud800""#,
        r#"{"\udfff":1}"#,
        r#""\ud800\n""#,
        r#""\ud800\\udc00""#,
        r#"["\ud800","\udc00"]"#,
        r#""\uD800\u0041""#,
    ];
    for content in bad {
        let expected = "1 bad_message `content` has half of a surrogate pair, which is no Unicode text";
        assert_eq!(chat(content), expected, "{content}");
    }
}

#[test]
fn the_usual_chat_is_borrowed_whole() {
    let request = parse(r#"{"type":"chat","room":"lobby","content":"hi","key":"k1","traceparent":"00"}"#).unwrap();
    assert!(matches!(request.traceparent, Some(Cow::Borrowed(_))));
    let borrowed = matches!(
        request.message,
        ClientMessage::Chat {
            room: Cow::Borrowed(_),
            key: Some(Cow::Borrowed(_)),
            ..
        }
    );
    assert!(borrowed);
}

#[test]
fn nothing_that_the_client_wrote_gets_into_a_log() {
    let request = parse(r#"{"type":"auth","token":"canary"}"#).unwrap();
    assert!(!format!("{request:?}").contains("canary"));
    for text in [
        r#"{"type":"auth","token":["canary"]}"#,
        r#"{"type":"canary"}"#,
        r#"{"type":"ping","ref":["canary"]}"#,
        r#"{"token":"canary""#,
        r#""canary""#,
    ] {
        assert!(!format!("{:?}", parse(text).unwrap_err()).contains("canary"), "{text}");
    }
}

/// Texts near enough to messages to get past the first check.
fn near_message() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "type", "ref", "room", "content", "key", "since", "before", "after", "limit", "token", "epoch", "seq",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "null",
            "1",
            "-1",
            "1.5",
            "1e9",
            "\"chat\"",
            "\"join\"",
            "\"history\"",
            "\"\\ud800\"",
            "\"\\u0041\"",
            "[]",
            "{\"epoch\":\"e\",\"seq\":1}",
            "{",
            "]",
            "\"",
            "\\",
            "tru",
        ])
        .prop_map(str::to_owned),
        "[\\[\\]{}\",:\\\\ud8c0-9a-f]{0,24}",
    ];
    prop::collection::vec((name, value), 0..6).prop_map(|fields| {
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    })
}

fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        ".{0,8}".prop_map(Into::into)
    ];
    leaf.prop_recursive(8, 64, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((".{0,4}", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        let _ = parse(&text);
    }

    /// JSON or not is serde's word, by way of a parser that builds nothing.
    #[test]
    fn bad_json_means_what_it_says(text in near_message()) {
        let json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        let bad_json = matches!(parse(&text), Err(BadMessage { code: ErrorCode::BadJson, .. }));
        prop_assert_eq!(json, !bad_json);
    }

    #[test]
    fn what_was_put_in_comes_out(room in ".{0,20}", key in ".{1,16}", content in any_json(), number in any::<i64>()) {
        let text = serde_json::json!({ "type": "chat", "room": room, "key": key, "content": content, "ref": number });
        let text = text.to_string();
        let request = parse(&text).unwrap();
        prop_assert_eq!(request.reference.map(|r| r.as_json().to_owned()), Some(number.to_string()));
        let ClientMessage::Chat { room: room_read, content: content_read, key: key_read } = request.message else {
            panic!("not a chat")
        };
        prop_assert_eq!(&*room_read, room);
        prop_assert_eq!(key_read.as_deref(), Some(&*key));
        prop_assert_eq!(content_read.get(), content.to_string());
    }

    #[test]
    fn nesting_is_counted_as_a_parser_would(json in any_json(), levels in 0_usize..9) {
        prop_assert_eq!(scan::nests_over(levels, &json.to_string()), depth(&json) > levels);
    }

    /// serde refuses exactly the half pairs when it builds a string.
    #[test]
    fn half_pairs_are_found_as_a_parser_would(text in r"(\\u[dD][89abcdABCD7eE][0-9a-f]{2}|\\\\|\\n|u|x|é){0,6}") {
        let json = format!("\"{text}\"");
        prop_assert_eq!(scan::has_lone_surrogate(&json), serde_json::from_str::<String>(&json).is_err());
    }

    /// The scans come after a check, but any text must be safe to hand them.
    #[test]
    fn scans_take_any_text(text in r#"[\[\]{}"\\uUd89c0é]{0,64}"#, levels in 0_usize..4) {
        let _ = scan::nests_over(levels, &text);
        let _ = scan::has_lone_surrogate(&text);
    }
}
