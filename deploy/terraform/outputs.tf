output "client_id" {
  description = "For workloadIdentity.clientId of the chart, or client_id in the configuration."
  value       = azurerm_user_assigned_identity.exporter.client_id
}

output "identity_id" {
  description = "For the identity of a virtual machine or container app."
  value       = azurerm_user_assigned_identity.exporter.id
}
