//! Tables and text for people. Pure: values in, text out.

use comfy_table::{ContentArrangement, Table, presets};
use types::api::{Event, Member};
use types::{Post, Role};

/// A table without borders, as wide as its content. Colours are added afterwards, since they have no width.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The same for a terminal with this many columns. What the last column says follows below the table if that would be wider,
/// after the first `key` cells of its row.
pub(crate) fn table_within(
    columns: Option<usize>,
    key: usize,
    header: &[&str],
    rows: &[Vec<String>],
) -> String {
    let wide = table(header, rows);
    let width = wide.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let Some((last, others)) = header.split_last().filter(|_| columns.is_some_and(|columns| width > columns))
    else {
        return wide;
    };
    let narrow: Vec<_> = rows.iter().map(|row| row.iter().take(others.len()).cloned().collect()).collect();
    let said = rows.iter().filter_map(|row| {
        let (said, cells) = row.split_last()?;
        let name = cells.iter().take(key).cloned().collect::<Vec<_>>().join(" ");
        (said != "-").then(|| format!("\n  - {}: {}", clean(&name), clean(said)))
    });
    let said: String = said.collect();
    let below = if said.is_empty() { said } else { format!("\n\n{}{said}", last.to_lowercase()) };
    table(others, &narrow) + &below
}

/// Text from elsewhere, safe for one line of a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How often a member was restarted, and why it ended last.
fn restarts(member: &Member) -> String {
    match (member.about.restarts, &member.about.last_end) {
        (0, _) => String::new(),
        (times, None) => times.to_string(),
        (times, Some(why)) => format!("{times} ({why})"),
    }
}

/// Colours the phases in a table, which are the words of the column with this header.
pub(crate) fn color_phases(table: &str, header: &str, color: bool) -> String {
    if !color {
        return table.to_owned();
    }
    let Some(column) = table.lines().next().and_then(|line| line.find(header)) else {
        return table.to_owned();
    };
    let lines: Vec<String> = table.lines().map(|line| color_word_at(line, column)).collect();
    lines.join("\n")
}

fn color_word_at(line: &str, column: usize) -> String {
    let Some((before, rest)) = line.split_at_checked(column) else {
        return line.to_owned();
    };
    let end = rest.find(' ').unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    match color_of(word) {
        Some(code) => format!("{before}\x1b[{code}m{word}\x1b[0m{after}"),
        None => line.to_owned(),
    }
}

fn color_of(word: &str) -> Option<&'static str> {
    const GREEN: &str = "32";
    const YELLOW: &str = "33";
    const RED: &str = "31";
    const GREY: &str = "90";
    match word {
        "ready" | "joined" | "present" => Some(GREEN),
        "starting" | "draining" | "degraded" | "changed" | "restarted" | "gap" => Some(YELLOW),
        "failed" | "gone" | "lost" => Some(RED),
        "stopped" | "left" => Some(GREY),
        _ => None,
    }
}

/// `ctl members`: one row for each member. The type has a column if it differs from some service's name, and gossip if
/// it uses another address than HTTP. Endpoints, restarts and reasons have a column if some member has them, or follow
/// below the table if it would be wider than the terminal: a URL that is broken in two cannot be clicked.
pub(crate) fn members_table(members: &[Member], now_ms: u64, color: bool, columns: Option<usize>) -> String {
    let wide = members_rows(members, now_ms, true);
    let width = wide.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    if columns.is_none_or(|columns| width <= columns) {
        return color_phases(&wide, "PHASE", color);
    }
    let mut text = color_phases(&members_rows(members, now_ms, false), "PHASE", color);
    let below =
        [("endpoints", endpoints as fn(&Member) -> String), ("restarts", restarts), ("reasons", reason)];
    for (title, of) in below {
        let lines = members.iter().map(|member| (member, of(member))).filter(|(_, of)| !of.is_empty());
        let lines: Vec<_> =
            lines.map(|(member, of)| format!("\n  - {}: {}", member.id, clean(&of))).collect();
        if !lines.is_empty() {
            text.push_str(&format!("\n\n{title}{}", lines.concat()));
        }
    }
    text
}

fn members_rows(members: &[Member], now_ms: u64, has_room: bool) -> String {
    let has_gossip = members.iter().any(|member| member.gossip != http(member));
    let has_endpoints = has_room && members.iter().any(|member| !endpoints(member).is_empty());
    let has_reason = has_room && members.iter().any(|member| !reason(member).is_empty());
    let has_type = members.iter().any(|member| !other_type(member).is_empty());
    let has_restarts = has_room && members.iter().any(|member| member.about.restarts > 0);
    let mut header = vec!["NODE", "ROLE"];
    if has_type {
        header.push("TYPE");
    }
    header.extend(["PHASE", "HTTP"]);
    if has_gossip {
        header.push("GOSSIP");
    }
    header.push("UP");
    if has_endpoints {
        header.push("ENDPOINTS");
    }
    if has_restarts {
        header.push("RESTARTS");
    }
    if has_reason {
        header.push("REASON");
    }
    let rows: Vec<_> = members
        .iter()
        .map(|member| {
            let mut row = vec![member.id.to_string(), role(member)];
            if has_type {
                row.push(other_type(member));
            }
            row.extend([phase(member).to_owned(), http(member).to_owned()]);
            if has_gossip {
                row.push(member.gossip.clone());
            }
            row.push(age(now_ms.saturating_sub(member.generation.0)));
            if has_endpoints {
                row.push(endpoints(member));
            }
            if has_restarts {
                row.push(restarts(member));
            }
            if has_reason {
                row.push(reason(member));
            }
            row
        })
        .collect();
    table(&header, &rows)
}

/// `ctl events`: one line for each event.
pub(crate) fn event_line(event: &Event, color: bool) -> String {
    let at = moment(event.at_ms);
    let line = format!("{at}  {:<9}  {:<12}  {}", event.kind.as_str(), event.node, clean(&event.message));
    if color { color_word_at(&line, at.len() + 2) } else { line }
}

/// The end of the year 9999, in milliseconds since 1970: later years have more than four digits.
const YEAR_9999: u64 = 253_402_300_799_999;

/// A time in UTC, or the bare number if it is out of range: clocks of other machines may give any value.
fn moment(at_ms: u64) -> String {
    if at_ms > YEAR_9999 {
        return format!("{at_ms} ms");
    }
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at_ms);
    humantime::format_rfc3339_millis(at).to_string()
}

/// The role, `?` if this version does not understand it.
pub(crate) fn role(member: &Member) -> String {
    member.state.as_ref().map_or_else(|| "?".to_owned(), |state| role_words(&state.role, state.duty))
}

/// The type of a member's service, if it differs from the service's name.
fn other_type(member: &Member) -> String {
    let service_type = member.state.as_ref().and_then(|state| state.service_type.as_ref());
    service_type.map(ToString::to_string).unwrap_or_default()
}

/// `storage/0`, and `storage/0 (replica)` for a replica.
pub(crate) fn role_words(role: &Role, post: Option<Post>) -> String {
    match post {
        Some(Post::Replica) => format!("{role} (replica)"),
        Some(Post::Primary) | None => role.to_string(),
    }
}

/// The phase, `?` if this version does not understand it.
pub(crate) fn phase(member: &Member) -> &'static str {
    member.state.as_ref().map_or("?", |state| state.phase.as_str())
}

/// Whether requests may be sent to it, also if one of its parts, such as a listener, has trouble.
pub(crate) fn is_ready(member: &Member) -> bool {
    member.state.as_ref().is_some_and(|state| state.phase.is_serving())
}

/// The address of its API.
fn http(member: &Member) -> &str {
    member.http.strip_prefix("http://").unwrap_or(&member.http)
}

/// The endpoints of its service, with names only if there are several.
pub(crate) fn endpoints(member: &Member) -> String {
    let endpoints: Vec<_> = member.state.iter().flat_map(|state| &state.endpoints).collect();
    if let [(_, url)] = endpoints[..] {
        return url.clone();
    }
    let words: Vec<_> = endpoints.iter().map(|(name, url)| format!("{name}={url}")).collect();
    words.join(" ")
}

/// Why its phase is what it is: `replica-behind: the replica may be 12 s behind`.
fn reason(member: &Member) -> String {
    let Some(state) = &member.state else { return String::new() };
    let Some(reason) = &state.reason else { return String::new() };
    state.reason_code.as_ref().map_or_else(|| reason.clone(), |code| format!("{code}: {reason}"))
}

/// `1 agent`, `5 agents`.
pub(crate) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A number of bytes in a readable unit: `17 B`, `1.5 KiB`, `3.0 GiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A length of time in its two largest units: `12s`, `3m12s`, `5h3m`, `2d5h`.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: u64, unit: char, small: u64, small_unit: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    if minutes == 0 {
        format!("{seconds}s")
    } else if hours == 0 {
        pair(minutes, 'm', seconds % 60, 's')
    } else if days == 0 {
        pair(hours, 'h', minutes % 60, 'm')
    } else {
        pair(days, 'd', hours % 24, 'h')
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(crate) mod tests {
    use types::{Generation, Phase, RoleState};

    use super::*;

    pub(crate) fn member(id: &str, role: &str, phase: Phase) -> Member {
        Member {
            id: id.parse().unwrap(),
            generation: Generation(1_000),
            version: 1,
            http: "http://127.0.0.1:10000".to_owned(),
            gossip: "127.0.0.1:10000".to_owned(),
            state: Some(RoleState { phase, ..RoleState::starting(role.parse().unwrap()) }),
            about: types::api::About::default(),
            store: None,
        }
    }

    #[test]
    fn members_are_shown_one_a_row_without_borders_or_trailing_blanks() {
        let members =
            [member("gateway-1", "api_gateway", Phase::Ready), member("n2", "storage/0", Phase::Starting)];
        assert_eq!(
            members_table(&members, 193_000, false, Some(80)),
            "\
NODE       ROLE         PHASE     HTTP             UP
gateway-1  api_gateway  ready     127.0.0.1:10000  3m12s
n2         storage/0    starting  127.0.0.1:10000  3m12s"
        );
    }

    #[test]
    fn unusual_values_have_columns_and_cannot_break_the_table() {
        let mut gateway = member("g", "api_gateway", Phase::Ready);
        let state = gateway.state.as_mut().unwrap();
        state.endpoints.insert("gateway".to_owned(), "http://127.0.0.1:8080".to_owned());
        gateway.gossip = "127.0.0.1:9".to_owned();
        let mut failed = member("f", "standby", Phase::Failed);
        let state = failed.state.as_mut().unwrap();
        state.reason = Some("no\nport \u{1b}[2J".to_owned());
        state.reason_code = Some("role-not-started".parse().unwrap());
        let mut newer = member("n", "standby", Phase::Ready);
        newer.state = None;
        assert_eq!(
            members_table(&[gateway.clone(), failed.clone(), newer], 1_000, false, None),
            "\
NODE  ROLE         PHASE   HTTP             GOSSIP           UP  ENDPOINTS              REASON
g     api_gateway  ready   127.0.0.1:10000  127.0.0.1:9      0s  http://127.0.0.1:8080
f     standby      failed  127.0.0.1:10000  127.0.0.1:10000  0s                         role-not-started: no port  [2J
n     ?            ?       127.0.0.1:10000  127.0.0.1:10000  0s"
        );
        assert_eq!(
            members_table(&[gateway, failed], 1_000, false, Some(80)),
            "\
NODE  ROLE         PHASE   HTTP             GOSSIP           UP
g     api_gateway  ready   127.0.0.1:10000  127.0.0.1:9      0s
f     standby      failed  127.0.0.1:10000  127.0.0.1:10000  0s

endpoints
  - g: http://127.0.0.1:8080

reasons
  - f: role-not-started: no port  [2J"
        );
    }

    #[test]
    fn the_type_has_a_column_if_some_service_has_another_name() {
        let mut edge = member("g", "edge", Phase::Ready);
        edge.state.as_mut().unwrap().service_type = Some("api_gateway".parse().unwrap());
        assert_eq!(
            members_table(&[edge, member("s", "storage/0", Phase::Ready)], 1_000, false, None),
            "\
NODE  ROLE       TYPE         PHASE  HTTP             UP
g     edge       api_gateway  ready  127.0.0.1:10000  0s
s     storage/0               ready  127.0.0.1:10000  0s"
        );
    }

    #[test]
    fn colours_do_not_move_the_columns() {
        let members = [member("a", "standby", Phase::Ready)];
        let plain = members_table(&members, 1_000, false, None);
        let colored = members_table(&members, 1_000, true, None);
        assert!(colored.contains("\x1b[32mready\x1b[0m  127"), "{colored}");
        assert_eq!(colored.replace("\x1b[32m", "").replace("\x1b[0m", ""), plain);
    }

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            id: "1.2".to_owned(),
            at_ms: 1_700_000_000_123,
            kind: types::api::EventKind::Lost,
            node: "n2".parse().unwrap(),
            generation: Generation(1),
            message: "given up\nafter 1.2 s".to_owned(),
            member: None,
        };
        assert_eq!(
            event_line(&event, false),
            "2023-11-14T22:13:20.123Z  lost       n2            given up after 1.2 s"
        );
        assert!(event_line(&event, true).contains("\x1b[31mlost\x1b[0m  "));
    }

    #[test]
    fn a_time_out_of_range_is_a_number() {
        for (at_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (YEAR_9999, "9999-12-31T23:59:59.999Z"),
            (YEAR_9999 + 1, "253402300800000 ms"),
            (u64::MAX, "18446744073709551615 ms"),
        ] {
            assert_eq!(moment(at_ms), expected);
        }
    }

    #[test]
    fn bytes_have_a_unit() {
        for (number, expected) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (u64::MAX, "16384.0 PiB")]
        {
            assert_eq!(bytes(number), expected);
        }
    }

    #[test]
    fn ages_have_two_units() {
        for (ms, expected) in
            [(999, "0s"), (60_000, "1m"), (192_000, "3m12s"), (18_180_000, "5h3m"), (190_800_000, "2d5h")]
        {
            assert_eq!(age(ms), expected);
        }
    }
}
