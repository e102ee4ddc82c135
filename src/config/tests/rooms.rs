//! `[room]`, by its old name too, and `[[rooms]]`.

use super::*;

#[test]
fn the_old_name_of_the_table_holds_and_says_so() {
    let place = Place::new();
    let loaded = place.load("[rooms]\nusers_shown = 3\n").expect("it loads");
    assert_eq!(loaded.config.room.users_shown, 3);
    let [warning] = loaded.warnings.as_slice() else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!((warning.key.as_str(), warning.severity), ("rooms", Severity::Warning));
    assert!(warning.what.contains("is now [room]"), "{warning}");
    assert!(
        warning.at.as_ref().is_some_and(|at| at.short().ends_with(":9")),
        "{warning}"
    );
    let row = loaded.effective.iter().find(|row| row.key == "room.users_shown");
    assert_eq!(row.map(|row| row.value_shown.as_str()), Some("3"));
}

#[test]
fn old_variables_hold_and_go_behind_new_ones() {
    let place = Place::new();
    for (given, shown, from) in [
        (
            vec![("CONCLAVE_ROOMS__USERS_SHOWN", "4")],
            4,
            "CONCLAVE_ROOMS__USERS_SHOWN",
        ),
        (
            vec![
                ("CONCLAVE_ROOM__USERS_SHOWN", "5"),
                ("CONCLAVE_ROOMS__USERS_SHOWN", "4"),
            ],
            5,
            "CONCLAVE_ROOM__USERS_SHOWN",
        ),
    ] {
        let mut sources = place.sources(NEEDED);
        sources.environment = variables(&given);
        let loaded = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.config.room.users_shown, shown);
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        assert!(loaded.warnings[0].what.contains("is now CONCLAVE_ROOM__USERS_SHOWN"));
        let row = loaded.effective.iter().find(|row| row.key == "room.users_shown");
        assert_eq!(row.map(|row| row.source.as_str()), Some(from));
    }
}

#[test]
fn classes_are_read_from_file_and_variables_and_shown() {
    let place = Place::new();
    let mut sources = place.sources(&format!(
        "{NEEDED}[[rooms]]\npattern = \"news/*\"\nchat = \"granted\"\nhistory_messages = 0\n\n[[rooms]]\npattern = \"lobby\"\n"
    ));
    sources.environment = variables(&[
        ("CONCLAVE_ROOMS__1__KEY_WINDOW", "5s"),
        ("CONCLAVE_ROOMS__2__PATTERN", "ops/*"),
        ("CONCLAVE_ROOMS__2__JOIN", "none"),
    ]);
    let loaded = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, []);
    let classes = classes::Classes::new(&loaded.config);
    let news = classes.of("news/today");
    assert_eq!((news.index, news.join, news.chat), (1, Who::All, Who::Granted));
    assert_eq!((news.history_messages, news.history_bytes), (0, 1 << 20));
    assert_eq!(classes.of("lobby").key_window, Duration::from_secs(5));
    assert_eq!(classes.of("ops/1").join, Who::None);
    let shown = |key: &str| {
        let row = loaded.effective.iter().find(|row| row.key == key).expect(key);
        (row.value_shown.as_str(), row.source.as_str())
    };
    assert_eq!(shown("rooms[0].chat").0, "granted");
    assert_eq!(shown("rooms[0].history_messages").0, "0");
    assert_eq!(shown("rooms[1].key_window"), ("5s", "CONCLAVE_ROOMS__1__KEY_WINDOW"));
    assert_eq!(shown("rooms[2].join"), ("none", "CONCLAVE_ROOMS__2__JOIN"));
}

#[test]
fn a_beginning_may_be_what_no_name_is() {
    let place = Place::new();
    for pattern in ["*", "a *", "a/*", &format!("{}*", "a".repeat(128))] {
        let loaded = place.load(&format!("[[rooms]]\npattern = \"{pattern}\"\n"));
        assert_eq!(told(loaded), Vec::<String>::new(), "{pattern}");
    }
    let told = told(place.load(&format!("[[rooms]]\npattern = \"{}*\"\n", "a".repeat(129))));
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn what_nats_cannot_do_by_class_is_a_warning() {
    let place = Place::new();
    let classes = "[[rooms]]\npattern = \"a\"\nkey_window = \"10s\"\n[[rooms]]\npattern = \"b\"\nkey_window = \"1h\"\n";
    for (kind, expected) in [("redis", 0), ("nats", 1)] {
        let told = told(place.load(&format!("[backplane]\nkind = \"{kind}\"\n{classes}")));
        let mut about = told.iter().filter(|line| line.contains("rooms["));
        assert_eq!(about.clone().count(), expected, "{told:?}");
        assert!(
            about.all(|line| line.starts_with("warning rooms[0].key_window: NATS remembers")),
            "{told:?}"
        );
    }
}

#[test]
fn all_mistakes_in_classes_are_told_at_once() {
    let place = Place::new();
    let told = told(place.load(
        "[[rooms]]\n[[rooms]]\npattern = \"a*a\"\njoin = \"x\"\n[[rooms]]\npattern = \"b\"\nbytes_per_second = 1\nhistory_bytes = \"4KiB\"\n",
    ));
    assert_eq!(told.len(), 5, "{told:#?}");
}
