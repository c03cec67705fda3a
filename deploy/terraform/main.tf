# An identity for the exporter that may read one Batch account. docs/deploy-aks.md says how to use it.

locals {
  # Azure Batch Account Reader.
  reader_role_id  = "11076f67-66f6-4be0-8f6b-f0609fd05cc9"
  subscription_id = split("/", var.batch_account_id)[2]
  account_group   = join("/", slice(split("/", var.batch_account_id), 0, 5))
}

resource "azurerm_user_assigned_identity" "exporter" {
  name                = var.identity_name
  resource_group_name = var.resource_group_name
  location            = var.location
}

resource "azurerm_federated_identity_credential" "kubernetes" {
  count = var.oidc_issuer_url == "" ? 0 : 1

  name                      = "kubernetes"
  user_assigned_identity_id = azurerm_user_assigned_identity.exporter.id
  issuer                    = var.oidc_issuer_url
  subject                   = "system:serviceaccount:${var.namespace}:${var.service_account_name}"
  audience                  = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_definition" "exporter" {
  count = var.least_privilege ? 1 : 0

  name              = "Azure Batch Exporter (${split("/", var.batch_account_id)[8]})"
  description       = "Read pools, jobs and tasks of Batch accounts."
  scope             = local.account_group
  assignable_scopes = [local.account_group]

  permissions {
    actions = [
      "Microsoft.Batch/batchAccounts/read",
      "Microsoft.Batch/batchAccounts/pools/read",
    ]
    data_actions = [
      "Microsoft.Batch/batchAccounts/jobs/read",
    ]
  }
}

resource "azurerm_role_assignment" "exporter" {
  scope          = var.batch_account_id
  principal_id   = azurerm_user_assigned_identity.exporter.principal_id
  principal_type = "ServicePrincipal"
  role_definition_id = (
    var.least_privilege
    ? azurerm_role_definition.exporter[0].role_definition_resource_id
    : "/subscriptions/${local.subscription_id}/providers/Microsoft.Authorization/roleDefinitions/${local.reader_role_id}"
  )
}
