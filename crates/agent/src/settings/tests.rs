use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn home(name: &str) -> Option<String> {
    (name == "COTERIE_STATE_DIR").then(|| "/state".to_owned())
}

fn with_file(text: &str) -> (tempfile::TempDir, Flags) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yaml");
    std::fs::write(&path, text).unwrap();
    let flags = Flags { config: Some(path.display().to_string()), ..Flags::default() };
    (folder, flags)
}

#[test]
fn without_any_flags_the_defaults_apply() {
    let config = Settings::gather(&Flags::default(), &home).unwrap().config().unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:10000");
    assert_eq!(config.role.to_string(), "api_gateway");
    assert_eq!(config.cluster.as_str(), "coterie");
    assert_eq!(config.data_dir, PathBuf::from("/state/data/coterie/port-10000"));
    assert_eq!(config.gossip, None);
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults() {
    let (_folder, mut flags) =
        with_file("service: standby\nprofile: wan\ncluster: from-file\nlisten_addr: 127.0.0.1:1\n");
    flags.listen_addr = Some("127.0.0.1:3".to_owned());
    let environment = |name: &str| match name {
        "COTERIE_LISTEN_ADDR" => Some("127.0.0.1:2".to_owned()),
        "COTERIE_CLUSTER" => Some("from-env".to_owned()),
        other => home(other),
    };
    let settings = Settings::gather(&flags, &environment).unwrap();
    let table = settings.render(Output::Table).unwrap();
    for (key, value, origin) in [
        ("listen_addr", "127.0.0.1:3", "flag"),
        ("cluster", "from-env", "environment"),
        ("profile", "wan", "file"),
        ("log_format", "text", "default"),
        ("data_dir", "/state/data/from-env/port-3", "derived"),
    ] {
        let row = table.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap();
        let columns: Vec<_> = row.split_whitespace().collect();
        assert_eq!(columns, [key, value, origin]);
    }
    assert_eq!(settings.config().unwrap().role, Role::Standby);
}

#[test]
fn the_error_for_an_unreadable_value_names_its_source() {
    let environment = |name: &str| {
        if name == "COTERIE_PROFILE" { Some("fast".to_owned()) } else { home(name) }
    };
    let error = Settings::gather(&Flags::default(), &environment).unwrap().config().unwrap_err().to_string();
    assert_eq!(
        error,
        "COTERIE_PROFILE (environment): `fast` can't be read: profile `fast` does not exist; there are local, lan and wan"
    );
    let flags = Flags { seed: Some(vec!["nowhere".to_owned()]), ..Flags::default() };
    let error = Settings::gather(&flags, &home).unwrap().config().unwrap_err().to_string();
    assert_eq!(error, "seed (flag): `nowhere` is not host:port");
}

#[test]
fn the_file_has_lists_labels_and_settings_and_names_every_mistake() {
    let (_folder, flags) = with_file(
        "seeds: [a:1, 'b:2']\nlabels: {disk: ssd}\nsettings:\n  api-gateway:\n    routes: []\ninsecure: true\n",
    );
    let config = Settings::gather(&flags, &home).unwrap().config().unwrap();
    assert_eq!(config.seeds, ["a:1", "b:2"]);
    assert_eq!(config.labels["disk"], "ssd");
    assert!(config.settings.contains_key(&"api-gateway".parse().unwrap()));
    assert!(config.insecure);

    let (_folder, flags) = with_file("lisen_addr: 1\nseeds: {}\nsettings: 3\n");
    let error = Settings::gather(&flags, &home).unwrap_err().to_string();
    assert!(error.contains("did you mean `listen_addr`?"), "{error}");
    assert!(error.contains("3 mistakes"), "{error}");
}

#[test]
fn a_node_on_port_0_gets_a_name_and_a_folder_named_after_it() {
    let flags = Flags { listen_addr: Some("127.0.0.1:0".to_owned()), ..Flags::default() };
    let config = Settings::gather(&flags, &home).unwrap().config().unwrap();
    let id = config.node_id.unwrap();
    assert!(config.data_dir.ends_with(id.as_str()));
}

#[test]
fn the_demo_can_not_be_combined_with_flags_that_it_sets_itself() {
    let flags = Flags { demo: true, node_id: Some("x".to_owned()), ..Flags::default() };
    let error = Settings::gather(&flags, &nothing).unwrap_err().to_string();
    assert!(error.contains("--node-id"), "{error}");
}

#[test]
fn the_number_of_shards_has_a_range_and_may_come_from_a_flag_or_the_file() {
    let with = |shards: &str| {
        let flags = Flags { shards: Some(shards.to_owned()), ..Flags::default() };
        Settings::gather(&flags, &home).unwrap().config().map(|config| config.shards.map(NonZeroU32::get))
    };
    assert_eq!(with("1").unwrap(), Some(1));
    assert_eq!(with("65536").unwrap(), Some(65_536));
    for bad in ["0", "65537", "-1", "two", "1.5", "99999999999999999999"] {
        let error = with(bad).unwrap_err().to_string();
        assert_eq!(error, format!("--shards (flag): `{bad}` is not a number from 1 to 65536"));
    }
    let (_folder, flags) = with_file("service: storage\nshards: 3\n");
    let settings = Settings::gather(&flags, &home).unwrap();
    assert_eq!(settings.config().unwrap().shards, NonZeroU32::new(3));
    let table = settings.render(Output::Table).unwrap();
    let row = table.lines().find(|line| line.starts_with("shards ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["shards", "3", "file"]);
    assert_eq!(Settings::gather(&Flags::default(), &home).unwrap().config().unwrap().shards, None);
}

#[test]
fn a_rendered_command_line_can_be_typed_into_a_shell() {
    let line = |arguments: &[&str]| command_line(arguments.iter().map(OsString::from));
    assert_eq!(line(&["target/debug/agent", "--shard", "1"]), "target/debug/agent --shard 1");
    assert_eq!(line(&["agent", "--zone", "it's here", ""]), r"agent --zone 'it'\''s here' ''");
}
