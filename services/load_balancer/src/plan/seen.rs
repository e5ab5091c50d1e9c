//! What the plan of a listener says to those who compare it with other services: what it expects, where it forwards, and what it
//! sends there. Pure.

use plugin::{ExpectedHttp, Expects, Sends, SentContent, TargetListener, TargetSetting};

use super::{GATEWAY, ListenerPlan, Source, TargetPlan};

impl ListenerPlan {
    /// What connections to it have to be like.
    pub(crate) fn expects(&self) -> Expects {
        let http = self.http.as_ref().map(|http| ExpectedHttp { tls: http.is_tls(), http1: http.http1 });
        Expects { proxies: self.trust.clone(), http }
    }

    /// What its connections to members are like.
    fn sends(&self, at: usize) -> Sends {
        let content = match (&self.http, &self.names) {
            (Some(_), _) => SentContent::Http1,
            (None, Some(_)) => SentContent::Tls,
            (None, None) => SentContent::Bytes,
        };
        Sends { place: format!("/listeners/{at}"), proxy_protocol: self.forward.send.is_some(), content }
    }

    /// The services that are targets of this listener, which is at a place in the settings.
    pub(crate) fn target_settings(&self, at: usize) -> Vec<TargetSetting> {
        let place = format!("/listeners/{at}");
        let api = self.http.as_ref().and_then(|http| http.service.as_ref());
        let api = api.map(|(service, _)| TargetSetting {
            pointer: format!("{place}/service"),
            service: service.clone(),
            listener: None,
        });
        let of_target = |(number, target): (usize, &TargetPlan)| {
            let Source::Service { service, listener } = &target.source else { return None };
            let place = if self.names.is_some() { format!("{place}/sni/{number}") } else { place.clone() };
            // The default is where the service is.
            let pointer = (listener != GATEWAY).then(|| format!("{place}/listener"));
            let may_be_api = self.names.is_none();
            let sends = self.sends(at);
            let listener = Some(TargetListener { name: listener.clone(), pointer, may_be_api, sends });
            Some(TargetSetting { pointer: format!("{place}/service"), service: service.clone(), listener })
        };
        api.into_iter().chain(self.targets.iter().enumerate().filter_map(of_target)).collect()
    }
}
