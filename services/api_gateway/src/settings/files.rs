//! Makes the paths of files in settings absolute. Pure.

use std::path::Path;

use plugin::access_log::resolve_access_log;
use plugin::http_listener::resolve_certificates;
use plugin::resolve_path;
use serde_json::Value;

/// Makes the paths in settings absolute that are relative to a folder. Whatever is no path stays.
pub(crate) fn resolve_files(settings: &mut Value, folder: &Path) {
    resolve_certificates(settings, folder);
    resolve_access_log(settings, folder);
    let routes = settings.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten();
    for path in routes.filter_map(|route| route.get_mut("ca")) {
        resolve_path(path, folder);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_of_files_become_absolute_and_nothing_else_changes() {
        let mut settings = json!({
            "listen": "a",
            "listeners": [
                {"name": "a"}, 7,
                {"tls": {"certificates": [{"cert": "tls/a.crt", "key": "/k"}, {"cert": 7, "key": ""}, "x"]}},
                {"tls": {"certificates": {"cert": "x"}, "client_ca": "tls/ca.crt"}}, {"tls": {"client_ca": 7}}, {"tls": 7},
            ],
            "access_log": {"to": "logs/access"},
            "routes": [{"ca": "tls/ca.crt"}, {"ca": "/ca"}, {"ca": ""}, {"ca": 7}, 7, {}],
        });
        resolve_files(&mut settings, Path::new("/m"));
        assert_eq!(
            settings,
            json!({
                "listen": "a",
                "listeners": [
                    {"name": "a"}, 7,
                    {"tls": {"certificates": [{"cert": "/m/tls/a.crt", "key": "/k"}, {"cert": 7, "key": ""}, "x"]}},
                    {"tls": {"certificates": {"cert": "x"}, "client_ca": "/m/tls/ca.crt"}}, {"tls": {"client_ca": 7}}, {"tls": 7},
                ],
                "access_log": {"to": "/m/logs/access"},
                "routes": [{"ca": "/m/tls/ca.crt"}, {"ca": "/ca"}, {"ca": ""}, {"ca": 7}, 7, {}],
            })
        );
        for same in
            [json!(null), json!([]), json!({"access_log": {"to": "stdout"}}), json!({"access_log": 7})]
        {
            let mut settings = same.clone();
            resolve_files(&mut settings, Path::new("/m"));
            assert_eq!(settings, same);
        }
    }
}
