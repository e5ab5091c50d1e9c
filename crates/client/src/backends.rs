//! The call for the backends of a gateway.

use types::backends::Backends;

use crate::call::Client;
use crate::error::ClientError;

impl Client {
    /// The backends of the gateway on this node, which must run the service of this client; see
    /// [`with_service`](Self::with_service).
    pub async fn backends(&self) -> Result<Backends, ClientError> {
        self.json(self.get(&format!("/svc/{}/backends", self.service()))).await
    }
}
