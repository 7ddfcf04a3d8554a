"""Ready sagas, one module each, and the resources that their workers need."""

from sagas import money_transfer, order_fulfilment, sign_up
from sagas.resources import resources

SAGAS = (order_fulfilment.saga, money_transfer.saga, sign_up.saga)

__all__ = ["SAGAS", "money_transfer", "order_fulfilment", "resources", "sign_up"]
