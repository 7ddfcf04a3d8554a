"""Why a participant says no: nothing happened, and asking again cannot help.

Refused
├── AlreadyUndone         this key was taken back before; its effect may not come to life again
├── KeyReused             this key stands for a call with other arguments
├── UnknownArticle · OutOfStock
├── UnknownAccount · AccountClosed · CardLimitExceeded · InsufficientFunds · OutOfTurn
├── UnknownAddress · CountryNotServed
├── EmailTaken · UnknownUser · UserBanned
├── MailboxRefused
├── UnknownOffer · PriceChanged · SoldOut · PapersMissing · UnknownBooking
├── UnknownApplicant · UnknownFund · FundExhausted
├── SlotTaken
└── ReceiptRefused
    ├── TaxIdMissing
    ├── ReviewRequired
    └── ReceiptExists
"""

from __future__ import annotations

from orchestrator import Permanent


class Refused(Permanent):
    """The participant refused for a reason of its business."""


class AlreadyUndone(Refused):
    """The undo of this key came first, so the late call is not let in."""


class KeyReused(Refused):
    """The key was used before with other arguments."""


class UnknownArticle(Refused):
    """The shop does not sell this article."""


class OutOfStock(Refused):
    """There is less on hand than was asked for."""


class UnknownAccount(Refused):
    """The bank keeps no such account."""


class AccountClosed(Refused):
    """The account takes part in nothing any more."""


class CardLimitExceeded(Refused):
    """The payment is larger than the card allows."""


class InsufficientFunds(Refused):
    """The account does not hold that much unreserved money."""


class OutOfTurn(Refused):
    """The leg of a transfer that must come first does not stand."""


class UnknownAddress(Refused):
    """No parcel can be sent to an address that does not exist."""


class CountryNotServed(Refused):
    """No carrier delivers to this country."""


class EmailTaken(Refused):
    """Somebody has signed up with this e-mail address."""


class UnknownUser(Refused):
    """There is no such user, or not any more."""


class UserBanned(Refused):
    """This person may not have an active account."""


class MailboxRefused(Refused):
    """The domain of the recipient takes no mail from us."""


class UnknownOffer(Refused):
    """Nobody offers this flight, room or car."""


class PriceChanged(Refused):
    """The offer costs something else by now."""


class SoldOut(Refused):
    """No place is left."""


class PapersMissing(Refused):
    """The traveller has no such paper."""


class UnknownBooking(Refused):
    """A ticket needs a booking that stands."""


class UnknownApplicant(Refused):
    """The credit bureau keeps no file on this person."""


class UnknownFund(Refused):
    """The lender has no such fund."""


class FundExhausted(Refused):
    """The fund does not hold that much money that is not promised to others."""


class SlotTaken(Refused):
    """There is a reminder at this time already."""


class ReceiptRefused(Refused):
    """No receipt may be written for this order."""


class TaxIdMissing(ReceiptRefused):
    """The customer has given no tax number."""


class ReviewRequired(ReceiptRefused):
    """A total this high needs a person's review."""


class ReceiptExists(ReceiptRefused):
    """The order has a receipt under another key."""


def _below(kind: type[Refused]) -> dict[str, type[Refused]]:
    found = {kind.__name__: kind}
    for child in kind.__subclasses__():
        found |= _below(child)
    return found


BY_NAME = _below(Refused)
"""How the SQL names them: `participants.refuse('OutOfStock', ...)`."""
