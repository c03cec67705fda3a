variable "batch_account_id" {
  description = "Resource id of the Batch account that is watched."
  type        = string
}

variable "resource_group_name" {
  description = "Resource group of the identity."
  type        = string
}

variable "location" {
  description = "Region of the identity."
  type        = string
}

variable "identity_name" {
  description = "Name of the identity."
  type        = string
  default     = "azure-batch-exporter"
}

variable "least_privilege" {
  description = "A custom role with the three permissions that are used, in place of Azure Batch Account Reader."
  type        = bool
  default     = false
}

variable "oidc_issuer_url" {
  description = "OIDC issuer of an AKS cluster whose service account may use the identity. Empty: none."
  type        = string
  default     = ""
}

variable "namespace" {
  description = "Namespace of that service account."
  type        = string
  default     = "monitoring"
}

variable "service_account_name" {
  description = "Name of that service account, which is that of the Helm release unless the chart is told otherwise."
  type        = string
  default     = "azure-batch-exporter"
}
