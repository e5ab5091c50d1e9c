//! The configurations of the other proxies. Pure: addresses and files in, text out.
//!
//! They are as equal as possible: one thread, connections to the backends are kept, round robin between both, the same
//! certificate, `X-Forwarded-For`, `-Proto` and `-Host`, no access log, and limits that no measurement reaches.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::proxies::backend::Site;
use crate::proxies::{Addresses, Layer};

/// Connections to backends that are kept; more than any load has clients.
const KEPT: usize = 1_024;

/// Lines that both the backend and the proxy need. Without a master process nginx is one process that ends with its guard.
fn nginx_main(folder: &Path, module: &str) -> String {
    format!(
        "{module}daemon off;\nmaster_process off;\nworker_processes 1;\npid {}/nginx.pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 16384; }}\n",
        folder.display()
    )
}

/// Folders for temporary files, which nginx creates although none are written.
fn nginx_folders(folder: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().fold(String::new(), |mut lines, name| {
        // Writing to a string can't fail.
        let _ = writeln!(lines, "  {name}_temp_path {}/{name};", folder.display());
        lines
    })
}

/// An nginx that serves the files at these addresses.
pub(crate) fn backend(addresses: &[SocketAddr], folder: &Path, files: &Path) -> String {
    let listens: String = addresses.iter().map(|addr| format!("listen {addr}; ")).collect();
    format!(
        "{}http {{\n{}  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  sendfile on;\n  \
         tcp_nopush on;\n  default_type text/plain;\n  open_file_cache max=16 inactive=1h;\n  open_file_cache_valid 1h;\n  \
         server {{ {listens}root {}; }}\n}}\n",
        nginx_main(folder, ""),
        nginx_folders(folder),
        files.display()
    )
}

/// nginx as a proxy. `is_mainline`: its version has `http2 on`, and the stream module built in.
pub(crate) fn nginx(
    layer: Layer,
    addresses: &Addresses,
    site: &Site,
    folder: &Path,
    is_mainline: bool,
) -> String {
    let [first, second] = site.backends;
    let Addresses { http1, http2, tls } = addresses;
    if layer == Layer::Tcp {
        let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n";
        return format!(
            "{}stream {{\n  upstream backends {{ server {first}; server {second}; }}\n  \
             server {{ listen {http1} backlog=4096; proxy_pass backends; proxy_timeout 1h; }}\n}}\n",
            nginx_main(folder, if is_mainline { "" } else { module }),
        );
    }
    let (with_http2, listening) = if is_mainline { ("", "  http2 on;\n") } else { (" http2", "") };
    let (cert, key) = (site.certificate.cert.display(), site.certificate.key.display());
    format!(
        "{}http {{\n{}  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  \
         client_header_timeout 1h;\n  \
         upstream backends {{ server {first}; server {second}; keepalive {KEPT}; keepalive_requests 1000000000; }}\n  \
         proxy_http_version 1.1;\n  proxy_set_header Connection \"\";\n  proxy_set_header Host $http_host;\n  \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n  \
         proxy_set_header X-Forwarded-Proto $scheme;\n  proxy_set_header X-Forwarded-Host $http_host;\n  \
         proxy_buffer_size 16k;\n  proxy_buffers 8 16k;\n  proxy_max_temp_file_size 0;\n  \
         ssl_certificate {cert};\n  ssl_certificate_key {key};\n  ssl_protocols TLSv1.2 TLSv1.3;\n\
         {listening}  server {{ listen {http1} backlog=4096; listen {http2}{with_http2} backlog=4096; \
         listen {tls} ssl{with_http2} backlog=4096; location / {{ proxy_pass http://backends; }} }}\n}}\n",
        nginx_main(folder, ""),
        nginx_folders(folder),
    )
}

pub(crate) fn haproxy(layer: Layer, addresses: &Addresses, site: &Site) -> String {
    let [first, second] = site.backends;
    let Addresses { http1, http2, tls } = addresses;
    let mode = match layer {
        Layer::Http => "http",
        Layer::Tcp => "tcp",
    };
    let mut config = format!(
        "global\n  nbthread 1\n  maxconn 8000\n\
         defaults\n  mode {mode}\n  maxconn 8000\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
    );
    match layer {
        Layer::Tcp => {
            // Writing to a string can't fail.
            let _ =
                write!(config, "frontend front\n  bind {http1} backlog 4096\n  default_backend backends\n");
        }
        Layer::Http => {
            let both = site.certificate.both.display();
            let _ = write!(
                config,
                "  timeout http-keep-alive 1h\n  http-reuse always\n  option forwardfor\n\
                 frontend front\n  bind {http1} backlog 4096\n  bind {http2} proto h2 backlog 4096\n  \
                 bind {tls} ssl crt {both} alpn h2,http/1.1 backlog 4096\n  \
                 http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]\n  \
                 http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  default_backend backends\n"
            );
        }
    }
    let _ = write!(
        config,
        "backend backends\n  balance roundrobin\n  server one {first}\n  server two {second}\n"
    );
    config
}

/// Envoy's configuration as JSON.
pub(crate) fn envoy(layer: Layer, addresses: &Addresses, site: &Site) -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let at = |addr: SocketAddr| json!({ "socket_address": { "address": addr.ip().to_string(), "port_value": addr.port() } });
    let filter = match layer {
        Layer::Tcp => json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "front",
                "cluster": "backends",
            },
        }),
        Layer::Http => json!({
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "front",
                "codec_type": "AUTO",
                "use_remote_address": true,
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
                }],
                "route_config": { "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backends" } }],
                }] },
            },
        }),
    };
    let listener =
        |addr: SocketAddr| json!({ "address": at(addr), "filter_chains": [{ "filters": [filter] }] });
    let mut listeners = vec![listener(addresses.http1)];
    if layer == Layer::Http {
        let mut tls = listener(addresses.tls);
        tls["filter_chains"][0]["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [{
                        "certificate_chain": { "filename": site.certificate.cert },
                        "private_key": { "filename": site.certificate.key },
                    }],
                },
            },
        });
        listeners.extend([listener(addresses.http2), tls]);
    }
    let endpoints = site.backends.map(|addr| json!({ "endpoint": { "address": at(addr) } }));
    json!({ "static_resources": {
        "listeners": listeners,
        "clusters": [{
            "name": "backends",
            "type": "STATIC",
            "connect_timeout": "5s",
            "lb_policy": "ROUND_ROBIN",
            "circuit_breakers": { "thresholds": [{
                "max_connections": 20_000, "max_pending_requests": 20_000, "max_requests": 20_000,
            }] },
            "load_assignment": { "cluster_name": "backends", "endpoints": [{ "lb_endpoints": endpoints }] },
        }],
    } })
}

/// Traefik's arguments, and its file of routes as JSON.
pub(crate) fn traefik(
    layer: Layer,
    addresses: &Addresses,
    site: &Site,
    routes: &Path,
) -> (Vec<String>, Value) {
    let Addresses { http1, http2, tls } = addresses;
    let mut arguments = vec![
        format!("--providers.file.filename={}", routes.display()),
        "--global.checknewversion=false".to_owned(),
        "--global.sendanonymoususage=false".to_owned(),
        "--log.level=ERROR".to_owned(),
        format!("--serversTransport.maxIdleConnsPerHost={KEPT}"),
        format!("--entrypoints.plain.address={http1}"),
    ];
    let file = match layer {
        Layer::Tcp => json!({ "tcp": {
            "routers": { "all": { "entryPoints": ["plain"], "rule": "HostSNI(`*`)", "service": "backends" } },
            "services": { "backends": { "loadBalancer": {
                "servers": site.backends.map(|addr| json!({ "address": addr.to_string() })),
            } } },
        } }),
        Layer::Http => {
            arguments.push(format!("--entrypoints.second.address={http2}"));
            arguments.push(format!("--entrypoints.tls.address={tls}"));
            let router = |points: &[&str]| json!({ "entryPoints": points, "rule": "PathPrefix(`/`)", "service": "backends" });
            let mut with_tls = router(&["tls"]);
            with_tls["tls"] = json!({});
            json!({
                "http": {
                    "routers": { "plain": router(&["plain", "second"]), "tls": with_tls },
                    "services": { "backends": { "loadBalancer": {
                        "servers": site.backends.map(|addr| json!({ "url": format!("http://{addr}") })),
                    } } },
                },
                "tls": { "stores": { "default": { "defaultCertificate": {
                    "certFile": site.certificate.cert, "keyFile": site.certificate.key,
                } } } },
            })
        }
    };
    (arguments, file)
}

/// A Caddyfile. Caddy does not forward TCP connections.
pub(crate) fn caddy(addresses: &Addresses, site: &Site) -> String {
    let [first, second] = site.backends;
    let (cert, key) = (site.certificate.cert.display(), site.certificate.key.display());
    let Addresses { http1, http2, tls } = addresses;
    let proxy = format!(
        "  bind 127.0.0.1\n  reverse_proxy {first} {second} {{\n    lb_policy round_robin\n    \
         transport http {{\n      keepalive_idle_conns_per_host {KEPT}\n    }}\n  }}\n"
    );
    format!(
        "{{\n  admin off\n  auto_https off\n  persist_config off\n  default_sni localhost\n  log {{\n    \
         level ERROR\n  }}\n  servers {{\n    protocols h1 h2 h2c\n  }}\n}}\n\
         http://:{} {{\n{proxy}}}\nhttp://:{} {{\n{proxy}}}\nhttps://:{} {{\n  tls {cert} {key}\n{proxy}}}\n",
        http1.port(),
        http2.port(),
        tls.port()
    )
}

#[cfg(test)]
mod tests;
