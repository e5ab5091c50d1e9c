//! The specs that nodes announce, so that members read a new one at once. Pure.
//!
//! An announcement is only a hint: the object store decides which spec a service has.

use std::collections::BTreeMap;

use types::ServiceName;

/// The number of the latest spec of each service that a node has announced.
pub type Announced = BTreeMap<ServiceName, u64>;

/// How many services a node announces at most; it forgets the one that it announced first.
const MOST: usize = 32;

/// What a node has announced itself.
#[derive(Debug, Default)]
pub(crate) struct OwnAnnouncements {
    specs: Announced,
    /// The services in the order in which they were announced last.
    order: Vec<ServiceName>,
}

impl OwnAnnouncements {
    /// Adds a spec. Returns everything to announce.
    pub(crate) fn add(&mut self, service: ServiceName, number: u64) -> &Announced {
        self.order.retain(|other| *other != service);
        self.order.push(service.clone());
        let latest = self.specs.entry(service).or_default();
        *latest = number.max(*latest);
        if self.order.len() > MOST {
            let first = self.order.remove(0);
            self.specs.remove(&first);
        }
        &self.specs
    }
}

/// Adds announcements of which only the latest counts. Returns whether there are news.
pub(crate) fn merge(known: &mut Announced, more: Announced) -> bool {
    let mut is_news = false;
    for (service, number) in more {
        let latest = known.entry(service).or_default();
        is_news |= number > *latest;
        *latest = number.max(*latest);
    }
    is_news
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    #[test]
    fn an_older_announcement_never_replaces_a_later_one() {
        let mut known = Announced::new();
        assert!(merge(&mut known, [(service("edge"), 3)].into()));
        assert!(!merge(&mut known, [(service("edge"), 3)].into()));
        assert!(!merge(&mut known, [(service("edge"), 2)].into()));
        assert!(merge(&mut known, [(service("edge"), 2), (service("storage"), 1)].into()));
        assert_eq!(known, [(service("edge"), 3), (service("storage"), 1)].into());
    }

    #[test]
    fn a_node_announces_a_limited_number_of_services_the_latest_ones() {
        let mut own = OwnAnnouncements::default();
        for number in 0..100 {
            own.add(service(&format!("s{number}")), 1);
            own.add(service("s0"), number);
        }
        let announced = own.add(service("s0"), 5).clone();
        assert_eq!(announced.len(), MOST);
        assert_eq!(announced[&service("s0")], 99, "never a lower number");
        assert!(announced.contains_key(&service("s99")) && !announced.contains_key(&service("s1")));
        let text = serde_json::to_string(&announced).unwrap();
        assert!(text.len() < crate::MAX_VALUE_BYTES);
    }
}
