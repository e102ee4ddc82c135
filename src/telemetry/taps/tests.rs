use super::*;
use serde_json::json;

fn text(value: serde_json::Value) -> Frame {
    Frame::text(|out| out.extend_from_slice(value.to_string().as_bytes()))
}

fn said(content: &str) -> Said {
    Said {
        kind: "chat",
        room: Some("lobby".into()),
        bytes: 40,
        content: Some(Said::beginning(content)),
    }
}

#[tokio::test(start_paused = true)]
async fn a_tap_notes_what_it_is_about_and_nothing_else() {
    let taps = Taps::default();
    assert!(!taps.is_on());
    let session = Session::random();
    let frame = text(json!({"type": "chat"}));
    taps.to_room("lobby", &frame);
    let (room, ann) = (
        taps.begin(Of::Room("lobby".into()), 10),
        taps.begin(Of::User("ann".into()), 10),
    );
    assert!(taps.is_on());
    taps.to_room("lobby", &frame);
    taps.to_room("ann", &frame);
    taps.to_user("lobby", session, &frame);
    taps.to_user("ann", session, &frame);
    taps.from_user("ann", session, || said("\"hi\""));
    taps.closed("ann", session, 1000, "normal");
    assert_eq!(room.fetch(Duration::ZERO).await.lines.len(), 1);
    assert_eq!(ann.fetch(Duration::ZERO).await.lines.len(), 3);
    assert_eq!(ann.fetch(Duration::from_secs(1)).await.lines.len(), 0);
    taps.end(&room);
    taps.end(&ann);
    assert!(!taps.is_on());
}

#[tokio::test(start_paused = true)]
async fn what_is_over_the_rate_or_the_memory_is_counted() {
    let taps = Taps::default();
    let room = taps.begin(Of::Room("lobby".into()), 3);
    for _ in 0..10 {
        taps.to_room("lobby", &text(json!({"type": "chat"})));
    }
    let fetched = room.fetch(Duration::ZERO).await;
    assert_eq!((fetched.lines.len(), fetched.left_out), (3, 7));
    let large = taps.begin(Of::Room("large".into()), 100);
    let frame = Frame::text(|out| out.resize(out.len() + 400 * 1024, b'x'));
    for _ in 0..5 {
        taps.to_room("large", &frame);
    }
    let fetched = large.fetch(Duration::ZERO).await;
    assert_eq!((fetched.lines.len(), fetched.left_out), (2, 3));
}

#[test]
fn what_was_said_is_hidden_and_a_token_always() {
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl";
    let chat = json!({
        "type": "chat", "room": "lobby", "seq": 7, "from": {"id": "ann", "name": "Ann Secret", "info": {"mail": "x"}},
        "content": format!("private {token} words"), "time": 1,
    });
    let line = |event| Line { time_ms: 5, event };
    let hidden = shown(&line(Event::ToRoom(text(chat.clone()))), false);
    assert_eq!(
        hidden,
        json!({"time": 5, "way": "room", "type": "chat", "room": "lobby", "seq": 7, "user": "ann",
            "bytes": chat.to_string().len()})
    );
    let open = shown(&line(Event::ToRoom(text(chat))), true);
    assert_eq!(open["content"], "\"private *** words\"");
    let long = format!("\"{}é{token}\"", "x".repeat(400));
    let session = Session::random();
    let cut = shown(&line(Event::FromUser(session, said(&long))), true);
    let content = cut["content"].as_str().unwrap();
    assert_eq!(content.chars().count(), 201);
    assert!(!content.contains("eyJ"));
    assert_eq!(cut["session"], session.to_string());
    assert_eq!(
        shown(&line(Event::FromUser(session, said(&long))), false)["content"],
        json!(null)
    );
    let list = json!({"type": "list", "room": "lobby", "users": [{"id": "a"}, {"id": "b"}], "count": 2, "epoch": "e", "seq": 1});
    let list = shown(&line(Event::ToUser(session, text(list))), true);
    assert_eq!((&list["users"], &list["count"]), (&json!(2), &json!(2)));
    let rubbish = shown(
        &line(Event::ToRoom(Frame::text(|out| out.extend_from_slice(b"{")))),
        true,
    );
    assert_eq!(rubbish["type"], "frame");
    let closed = shown(
        &line(Event::Closed {
            session,
            code: 1008,
            reason: "kicked",
        }),
        false,
    );
    assert_eq!((&closed["type"], &closed["code"]), (&json!("closed"), &json!(1008)));
}
